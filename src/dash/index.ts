export { Dash } from './server.js';
export type { DashOptions } from './server.js';
