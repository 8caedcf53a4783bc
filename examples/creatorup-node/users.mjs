// The users the hub has pushed, in one JSON file. A real CreatorUp has a table with these columns; what it must decide
// at each push is the same.

import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';

/** Copies of users, by their id at DigiUp. */
export class Users {
  #file;
  #copies;

  constructor(file) {
    this.#file = file;
    this.#copies = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  }

  /**
   * Takes a push and says under which id the user is kept. A push that is older than the copy, or that repeats it,
   * changes nothing and is confirmed all the same: it was received, and that is what the hub wants to know.
   */
  take(push, key) {
    const known = this.#copies[push.digiup_user_id];
    if (known && instant(push.as_of) < instant(known.as_of)) {
      return { copy: known, changed: false };
    }
    const isRepetition = Boolean(known && key && known.idempotency_key === key);
    const { digiup_user_id: _, as_of, ...content } = push;
    const copy = isRepetition
      ? { ...known, as_of }
      : {
          // Of a deleted user nothing else is told, and this much remains: a late push of before brings nobody back.
          ...content,
          creatorup_user_id: known?.creatorup_user_id ?? randomUUID(),
          as_of,
          idempotency_key: key ?? null,
          synced_at: new Date().toISOString(),
        };
    this.#keep({ ...this.#copies, [push.digiup_user_id]: copy });
    return { copy, changed: !isRepetition };
  }

  /** On disk before it is confirmed: written beside, forced down, and put in place in one step. */
  #keep(copies) {
    const beside = `${this.#file}.part`;
    const handle = openSync(beside, 'w', 0o600);
    try {
      writeSync(handle, `${JSON.stringify(copies, null, 2)}\n`);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(beside, this.#file);
    this.#copies = copies;
  }
}

/** Nanoseconds since 1970 of an RFC 3339 time, or null. A Date has milliseconds; two pushes may differ by less. */
export function instant(text) {
  const parts = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/.exec(text);
  const milliseconds = parts ? Date.parse(parts[1] + parts[3]) : NaN;
  return Number.isNaN(milliseconds)
    ? null
    : BigInt(milliseconds) * 1_000_000n + BigInt((parts[2] ?? '').padEnd(9, '0'));
}
