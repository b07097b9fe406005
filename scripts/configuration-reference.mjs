/** `docs/configuration.md`, from the schema that configurations are checked by. */

/**
 * @param {object} schema of a whole configuration, as JSON Schema
 * @param {readonly { flags: string, keys: readonly string[] }[]} options of the command line that set keys
 */
export function configurationReference(schema, options) {
  const flags = new Map();
  for (const { flags: spelled, keys } of options)
    for (const key of keys) flags.set(key, spelled.split(' ')[0]);
  const sections = [];
  const alone = [];
  for (const [name, below] of Object.entries(schema.properties)) {
    if (below.properties === undefined) alone.push(row(name, below, flags));
    else sections.push(`## \`${name}\`\n\n${table(rowsOf(below, name, flags))}`);
  }
  return `# Configuration

<!-- Written by \`npm run docs\` from src/config/schema.ts; a test holds it to it. -->

Every key, what it means, and what it is when it is left out. YAML, strict: a key that does not exist is an error that
names its line and the key that was probably meant. A flag overrides its key; \`--set a.b=c\` sets any. \`--print-config\`
prints a configuration with everything decided.

## At the top

${table(alone)}

${sections.join('\n\n')}
`;
}

/** Rows of the keys below `prefix`, those of objects in them included. */
function rowsOf(schema, prefix, flags) {
  const rows = [];
  for (const [name, below] of Object.entries(schema.properties)) {
    const key = `${prefix}.${name}`;
    rows.push(row(key, below, flags));
    const inner = objectIn(below);
    if (inner !== null) rows.push(...rowsOf(inner.object, `${key}${inner.list ? '[]' : ''}`, flags));
  }
  return rows;
}

/** The object that a value is, or that the elements of a list are, null or not. */
function objectIn(schema) {
  for (const one of schema.anyOf ?? [schema]) {
    if (one.properties !== undefined) return { object: one, list: false };
    if (one.items?.properties !== undefined) return { object: one.items, list: true };
  }
  return null;
}

function row(key, schema, flags) {
  const flag = flags.get(key);
  const description = schema.description ?? '';
  return [
    `\`${key}\`${flag === undefined ? '' : `<br>\`${flag}\``}`,
    valuesOf(schema),
    'default' in schema ? `\`${JSON.stringify(schema.default)}\`` : '—',
    description.replaceAll('<', '\\<'),
  ].map((cell) => cell.replaceAll('|', '\\|'));
}

function table(rows) {
  return [['key', 'values', 'default', ''], ['---', '---', '---', '---'], ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

function valuesOf(schema) {
  if (Array.isArray(schema.type))
    return schema.type.map((type) => valuesOf({ ...schema, type })).join(' or ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(valuesOf).filter(Boolean).join(' or ');
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ');
  if (schema.const !== undefined) return `\`${schema.const}\``;
  switch (schema.type) {
    case 'integer':
      return `whole number${range(schema)}`;
    case 'number':
      return `number${range(schema)}`;
    case 'boolean':
      return '`true`, `false`';
    case 'array': {
      const count =
        schema.minItems !== undefined && schema.minItems === schema.maxItems ? ` of ${schema.minItems}` : '';
      return `list${count}: ${schema.items.properties === undefined ? valuesOf(schema.items) : 'objects, below'}`;
    }
    case 'object':
      return 'object, below';
    case 'null':
      return '`null`';
    default:
      return 'text';
  }
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }) {
  // What a whole number is bounded by in any case says nothing.
  const most = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum;
  return [
    exclusiveMinimum === undefined ? '' : ` > ${exclusiveMinimum}`,
    minimum === undefined ? '' : ` ≥ ${minimum}`,
    exclusiveMaximum === undefined ? '' : ` < ${exclusiveMaximum}`,
    most === undefined ? '' : ` ≤ ${most}`,
  ]
    .filter(Boolean)
    .join(',');
}
