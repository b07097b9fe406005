import { replaceHint } from './binary.js';
import type { Binary } from './binary.js';

/** Why a binary that lies there does not load, from what the dynamic linker said; and what to do. */
export function explainLoadFailure(
  said: string,
  binary: Pick<Binary, 'triple' | 'package'>,
): { message: string; hint: string } {
  const named = `the native binary for ${binary.triple}`;
  const symbol = /version [`'"]?((?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)['"]? not found/.exec(said)?.[1];
  if (symbol !== undefined) {
    return {
      message: `${named} needs ${symbol}, and this system is older${runtime()}`,
      hint: 'use a newer system or container image (Debian 10, Ubuntu 20.04, RHEL 8 or newer), or build it here: npm run build in a checkout',
    };
  }
  if (
    /wrong ELF class|invalid ELF header|Exec format error|incompatible architecture|not a valid Win32/i.test(
      said,
    )
  ) {
    return {
      message: `the native binary is damaged or made for another processor than ${binary.triple}: ${firstLine(said)}`,
      hint: `${replaceHint(binary)} (node_modules copied from another machine do not work)`,
    };
  }
  const library = /^(?:.*: )?([\w.+-]+\.so[\w.]*): cannot open shared object file/.exec(firstLine(said))?.[1];
  if (library !== undefined) {
    return {
      message: `${named} needs ${library}, which this system does not have`,
      hint: `install the package that holds ${library}, or use an image that is not stripped down`,
    };
  }
  return { message: `${named} does not load: ${firstLine(said)}`, hint: replaceHint(binary) };
}

/** The version of glibc that runs, where Node knows one. */
function runtime(): string {
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  // Looking up the names of network interfaces takes seconds where no DNS answers.
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  const version = header?.glibcVersionRuntime;
  return version === undefined ? '' : ` (it has glibc ${version})`;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
