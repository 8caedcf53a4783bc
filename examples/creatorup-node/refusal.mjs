// What went wrong with a call, as the hub says it: a code, a reason for programs, a message for people, and the fields
// that are at fault. Over gRPC the last three travel as a google.rpc.Status in `grpc-status-details-bin`.

import { fileURLToPath } from 'node:url';
import { status as codes } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const messages = loadSync(fileURLToPath(new URL('error_details.proto', import.meta.url)), {
  keepCase: true,
  longs: Number,
  defaults: true,
});
const DETAILS = 'grpc-status-details-bin';

/** A call that failed for good, or that may be made again. */
export class Refusal extends Error {
  /** Reads what grpc-js throws. The request id is the one that was sent: it is there also when no answer came. */
  constructor(error, { call, requestId, attempts }) {
    const details = decode(error.metadata?.get(DETAILS)[0]);
    const info = details['google.rpc.ErrorInfo'];
    super(error.details || error.message, { cause: error });
    this.name = 'Refusal';
    this.call = call;
    this.code = codes[error.code] ?? 'UNKNOWN';
    this.reason = info?.reason ?? null;
    this.metadata = info?.metadata ?? {};
    this.fieldViolations = details['google.rpc.BadRequest']?.field_violations ?? [];
    const delay = details['google.rpc.RetryInfo']?.retry_delay;
    this.retryAfterMs = delay ? delay.seconds * 1000 + delay.nanos / 1e6 : 0;
    this.requestId = requestId;
    this.attempts = attempts;
  }

  /** Whether the same call may succeed later. A used-up quota is RESOURCE_EXHAUSTED too, and waiting does not help. */
  mayPass() {
    return this.code === 'UNAVAILABLE' || this.reason === 'RATE_LIMITED';
  }

  /** The same, for --json. */
  toJSON() {
    const { call, code, reason, message, metadata, fieldViolations, requestId, attempts } = this;
    return {
      call,
      code,
      reason,
      message,
      metadata,
      field_violations: fieldViolations,
      request_id: requestId,
      attempts,
    };
  }

  /** The same, for people. */
  lines() {
    return [
      `${this.call} failed: ${this.code}${this.reason ? ` (${this.reason})` : ''}: ${this.message}`,
      ...this.fieldViolations.map(({ field, description }) => `  ${field}: ${description}`),
      ...Object.entries(this.metadata).map(([name, value]) => `  ${name}: ${value}`),
      `  after ${this.attempts} ${this.attempts === 1 ? 'try' : 'tries'}; look for request id ${this.requestId} in the hub's log`,
    ];
  }
}

/** The details by the name of their message; whatever cannot be read is left out, because the code stands without it. */
function decode(bytes) {
  if (!bytes) {
    return {};
  }
  try {
    const { details } = messages['google.rpc.Status'].deserialize(bytes);
    const known = details
      .map(({ type_url: url, value }) => ({ name: url.split('/').pop(), value }))
      .filter(({ name }) => messages[name]);
    return Object.fromEntries(known.map(({ name, value }) => [name, messages[name].deserialize(value)]));
  } catch {
    return {};
  }
}
