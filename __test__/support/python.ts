/** The Python that tests use, and files that it makes. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
/** Python with the streamer's requirements. */
export const python = process.env.CANDLEWICK_PYTHON ?? join(repository, '.venv', 'bin', 'python');
/** The data that lies beside the repository where it is developed; tests that need it are skipped elsewhere. */
export const sharedData = join(repository, '..', 'shared', 'data');
export const hasSharedData = existsSync(join(sharedData, 'web-text'));

/** Runs a script with JSON on its stdin and returns what it prints. */
export function runPython(script: string, input: unknown = null): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, stdout: string) => (error ? reject(error) : resolve(stdout));
    const child = execFile(python, ['-c', script], { maxBuffer: 1 << 30 }, done);
    child.stdin?.on('error', () => {}).end(JSON.stringify(input));
  });
}

/** A Parquet file to make. */
export interface ParquetFile {
  path: string;
  documents: (string | null)[];
  /** Rows a group; default: all. */
  groupRows?: number;
  /** Arrow type of the column, as an expression over `pa`; default `pa.string()`. */
  type?: string;
  /** Name of the column; default `text`. */
  column?: string;
  compression?: 'zstd' | 'snappy' | 'none';
}

const writeParquetScript = `
import json, os, sys
import pyarrow as pa, pyarrow.parquet as pq
for file in json.load(sys.stdin):
    kind = eval(file.get("type", "pa.string()"))
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    documents = file["documents"]
    if pa.types.is_binary(value_type) or pa.types.is_large_binary(value_type):
        # Bytes travel as Latin-1.
        documents = [None if d is None else d.encode("latin-1") for d in documents]
    array = pa.array(documents, type=value_type)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_encode()
    numbers = pa.array(range(len(documents)), type=pa.int64())
    table = pa.table({"number": numbers, file.get("column", "text"): array})
    os.makedirs(os.path.dirname(file["path"]), exist_ok=True)
    pq.write_table(table, file["path"], row_group_size=file.get("groupRows") or max(len(documents), 1),
                   compression=file.get("compression", "zstd"), write_page_checksum=True)
`;

/** Writes Parquet files with columns `number` and `text`. */
export async function writeParquet(...files: ParquetFile[]): Promise<void> {
  await runPython(writeParquetScript, files);
}
