/** The command that installs a tool on this machine, for the hints of set-up. */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

const managers = [
  ['apt', 'apt-get', 'sudo apt-get install -y'],
  ['dnf', 'dnf', 'sudo dnf install -y'],
  ['apk', 'apk', 'sudo apk add'],
  ['pacman', 'pacman', 'sudo pacman -S --needed'],
  ['zypper', 'zypper', 'sudo zypper install -y'],
];

/**
 * @param {string} name
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {boolean} whether a program of this name lies on PATH
 */
export function onPath(name, env = process.env) {
  return (env.PATH ?? '').split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, name)));
}

/**
 * @param {import('./package-manager.mjs').PackageNames} names what the package is called, by package manager
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {string | null} one command line, or null where nothing is known for this machine
 */
export function installCommand(names, env = process.env) {
  if (process.platform === 'darwin') return names.macos ?? (names.brew ? `brew install ${names.brew}` : null);
  if (process.platform === 'win32') return names.winget ? `winget install ${names.winget}` : null;
  for (const [manager, program, command] of managers) {
    if (names[manager] && onPath(program, env)) {
      const root = process.getuid?.() === 0;
      return `${root ? command.replace(/^sudo /, '') : command} ${names[manager]}`;
    }
  }
  return null;
}
