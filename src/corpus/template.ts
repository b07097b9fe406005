/** What is wrong with a text template such as `{title}\n\n{text}`, in words; null for one that can be used. */
export function templateProblem(template: string): string | null {
  let columns = 0;
  for (const [part] of template.matchAll(/[^{}]+|\{\{|\}\}|\{[^{}]*\}|[{}]/g)) {
    if (part === '{' || part === '}') return `has a ${part} without its pair`;
    if (part === '{}') return 'has braces without a column';
    if (part.startsWith('{') && part !== '{{') columns++;
  }
  return columns === 0 ? 'names no column' : null;
}

/** How a template is written. */
export const templateHint =
  "write columns in braces, as in '{title}\\n\\n{text}', and {{ or }} for a brace itself";
