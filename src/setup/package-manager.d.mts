/** What a package is called, by package manager. */
export interface PackageNames {
  apt?: string;
  dnf?: string;
  apk?: string;
  pacman?: string;
  zypper?: string;
  brew?: string;
  /** A whole command for macOS, where it is not brew. */
  macos?: string;
  winget?: string;
}

/** Whether a program of this name lies on PATH. */
export function onPath(name: string, env?: NodeJS.ProcessEnv): boolean;
/** One command line that installs a package on this machine, or null where nothing is known for it. */
export function installCommand(names: PackageNames, env?: NodeJS.ProcessEnv): string | null;
