// The hub over gRPC. The contract is read from the repository's `proto/` at start; nothing is generated beforehand.

import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { Refusal } from './refusal.mjs';

const FILES = [
  'upbridge/v1/user_sync_service.proto',
  'upbridge/v1/membership_service.proto',
  'upbridge/v1/usage_service.proto',
];
/** How long one try may take. */
const TRY_MS = 10_000;
/** Tries of one call, the first included: with the waits between them about ten seconds of a hub that restarts. */
const TRIES = 7;
const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 5_000;
/** What the contract says of a call that may be made again. */
const REPEATABLE = ['IDEMPOTENT', 'NO_SIDE_EFFECTS'];

/** A connection to the hub for one user. */
export class Hub {
  #contract;
  #clients = new Map();
  #metadata;
  #address;
  #credentials;
  #onRetry;

  /** `url` is http://host:port or https://host:port; `onRetry` is told of each failure that is tried again. */
  constructor({ url, token, proto, onRetry = () => {} }) {
    const { protocol, hostname, port } = new URL(url);
    const isSecure = protocol === 'https:';
    this.#address = `${hostname}:${port || (isSecure ? 443 : 80)}`;
    this.#credentials = isSecure ? grpc.credentials.createSsl() : grpc.credentials.createInsecure();
    this.#contract = loadSync(FILES, {
      includeDirs: [proto],
      keepCase: true,
      longs: Number,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    this.#metadata = new grpc.Metadata();
    this.#metadata.set('authorization', `Bearer ${token}`);
    this.#onRetry = onRetry;
  }

  /**
   * Calls `service/method` and tries again what may pass, with the very same request: a request that has a key is
   * counted once, however often it arrives and whichever of its answers is lost.
   */
  async call(service, method, request) {
    const definition = this.#contract[`upbridge.v1.${service}`][method];
    const isRepeatable = REPEATABLE.includes(definition.options.idempotency_level);
    const metadata = this.#metadata.clone();
    const requestId = randomUUID().replaceAll('-', '');
    metadata.set('x-request-id', requestId);
    for (let attempts = 1; ; attempts += 1) {
      try {
        return { answer: await this.#once(service, method, request, metadata), attempts };
      } catch (error) {
        const refusal = new Refusal(error, { call: method, requestId, attempts });
        if (!isRepeatable || attempts === TRIES || !refusal.mayPass()) {
          throw refusal;
        }
        this.#onRetry(refusal);
        await wait(Math.max(refusal.retryAfterMs, backoff(attempts)));
      }
    }
  }

  close() {
    this.#clients.forEach((client) => client.close());
  }

  #once(service, method, request, metadata) {
    const client = this.#client(service);
    const deadline = Date.now() + TRY_MS;
    return new Promise((resolve, reject) => {
      client[method](request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  /** Clients of one address share its connection. */
  #client(service) {
    if (!this.#clients.has(service)) {
      const Client = grpc.makeGenericClientConstructor(this.#contract[`upbridge.v1.${service}`], service);
      // The default waits a second before it connects again, longer than the first waits here.
      const options = {
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 1_000,
        'grpc.keepalive_time_ms': 30_000,
      };
      this.#clients.set(service, new Client(this.#address, this.#credentials, options));
    }
    return this.#clients.get(service);
  }
}

/** Twice as long each time, and a part of it by chance, so that clients of one outage do not come back together. */
function backoff(attempts) {
  const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempts - 1));
  return longest / 2 + Math.random() * (longest / 2);
}

/** A plain object as google.protobuf.Struct. */
export function toStruct(object) {
  return { fields: Object.fromEntries(Object.entries(object).map(([name, value]) => [name, toValue(value)])) };
}

function toValue(value) {
  if (value === null) return { nullValue: 'NULL_VALUE' };
  if (typeof value === 'number') return { numberValue: value };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };
  return { structValue: toStruct(value) };
}

/** A google.protobuf.Timestamp as RFC 3339, to the millisecond; null stays null. */
export function toTime(timestamp) {
  return timestamp && new Date(timestamp.seconds * 1000 + timestamp.nanos / 1e6).toISOString();
}
