/** A reader of the streamer's frames, written from the protocol's description: a test of the wire format itself. */
const kinds = ['', 'loading', 'ready', 'file', 'batch', 'progress', 'heartbeat', 'error', 'done'];

/** One frame whose header and checksum were right. */
export interface Frame {
  kind: string;
  json: Record<string, unknown>;
  binary: Buffer;
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

/** CRC-32C of several parts in a row. */
export function crc32c(...parts: Uint8Array[]): number {
  let crc = 0xffffffff;
  for (const part of parts) {
    for (let i = 0; i < part.length; i++)
      crc = (crc >>> 8) ^ (table[(crc ^ (part[i] as number)) & 0xff] as number);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Cuts frames out of chunks and throws for anything that the protocol does not allow. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #size = 0;
  #needed = 28;
  #sequence = 0;

  push(chunk: Buffer): Frame[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    const frames: Frame[] = [];
    // Joined only once a frame is complete: a large one comes in thousands of chunks.
    while (this.#size >= this.#needed) {
      const buffer = Buffer.concat(this.#chunks);
      this.#chunks = [buffer];
      const header = buffer.subarray(0, 28);
      const jsonLength = header.readUInt32LE(12);
      const length = 28 + jsonLength + Number(header.readBigUInt64LE(16));
      this.#needed = length;
      if (this.#size < length) break;
      if (header.toString('latin1', 0, 4) !== 'CWK1') throw new Error('magic');
      if (header[4] !== 1 || header.readUInt16LE(6) !== 0) throw new Error('version or reserved bytes');
      if (header.readUInt32LE(8) !== this.#sequence++) throw new Error('sequence');
      const body = buffer.subarray(28, length);
      if (crc32c(header.subarray(0, 24), body) !== header.readUInt32LE(24)) throw new Error('checksum');
      const kind = kinds[header[5] ?? 0];
      if (!kind) throw new Error(`kind ${header[5]}`);
      frames.push({
        kind,
        json: JSON.parse(body.toString('utf8', 0, jsonLength)) as Record<string, unknown>,
        binary: Buffer.from(body.subarray(jsonLength)),
      });
      this.#chunks = [buffer.subarray(length)];
      this.#size -= length;
      this.#needed = 28;
    }
    return frames;
  }
}

/** The documents of a batch frame; checks its offsets. */
export function documentsOf({ binary, json }: Frame): string[] {
  const rows = json.rows as number;
  const offsets = Array.from({ length: rows + 1 }, (_, i) => binary.readInt32LE(4 * i));
  const text = binary.subarray(4 * (rows + 1));
  if (offsets[0] !== 0 || offsets[rows] !== text.length) throw new Error('offsets do not fit the text');
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  return offsets.slice(1).map((end, i) => decoder.decode(text.subarray(offsets[i], end)));
}
