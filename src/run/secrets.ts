/** What authorises us somewhere, and how such things look. None of it is written into a run directory. */

const VARIABLES = ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HUGGINGFACE_TOKEN', 'HF_ACCESS_TOKEN'];
const HUB_TOKEN = /\bhf_[A-Za-z0-9]{16,}\b/g;
/** User and password of an address. */
const CREDENTIALS = /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@]+@/gi;

/** `text` without tokens and passwords. */
export function withoutSecrets(text: string, environment: NodeJS.ProcessEnv = process.env): string {
  let clean = text.replace(HUB_TOKEN, '***').replace(CREDENTIALS, '$1***@');
  for (const name of VARIABLES) {
    const value = environment[name];
    if (value !== undefined && value.length >= 6) clean = clean.replaceAll(value, '***');
  }
  return clean;
}
