import { platformTriple } from './platform.js';

/** Why a binary that lies there does not load, from what the dynamic linker said; and what to do. */
export function explainLoadFailure(said: string): { message: string; hint: string } {
  const triple = platformTriple();
  const symbol = /version [`'"]?((?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)['"]? not found/.exec(said)?.[1];
  if (symbol !== undefined) {
    return {
      message: `the native binary for ${triple} needs ${symbol}, and this system is older${runtime()}`,
      hint: 'use a newer system or container image (Debian 12, Ubuntu 22.04 or newer), or build it here: npm run build in a checkout',
    };
  }
  if (
    /wrong ELF class|invalid ELF header|Exec format error|incompatible architecture|not a valid Win32/i.test(
      said,
    )
  ) {
    return {
      message: `the native binary is damaged or made for another processor than ${triple}: ${firstLine(said)}`,
      hint: 'reinstall candlewick on this machine (node_modules copied from another one do not work); in a checkout: npm run build',
    };
  }
  const library = /^(?:.*: )?([\w.+-]+\.so[\w.]*): cannot open shared object file/.exec(firstLine(said))?.[1];
  if (library !== undefined) {
    return {
      message: `the native binary for ${triple} needs ${library}, which this system does not have`,
      hint: `install the package that holds ${library}, or use an image that is not stripped down`,
    };
  }
  return {
    message: `the native binary for ${triple} does not load: ${firstLine(said)}`,
    hint: 'reinstall candlewick on this machine; in a checkout: npm run build',
  };
}

function runtime(): string {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  const version = report.header?.glibcVersionRuntime;
  return version === undefined ? '' : ` (it has glibc ${version})`;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
