#!/usr/bin/env node
// A small CreatorUp: the command.

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { randomUUID } from 'node:crypto';
import { Hub } from './hub.mjs';
import { receiver } from './receive.mjs';
import { Refusal } from './refusal.mjs';
import { report } from './report.mjs';
import { Users } from './users.mjs';

const HELP = `A small CreatorUp.

  node main.mjs [options]            verify a token, check access, record usage twice, read the month
  node main.mjs receive [options]    take the users the hub pushes to POST /api/v1/digiup/user/sync

Asking the hub
  --url URL         the hub; else UPBRIDGE_URL, else http://127.0.0.1:3345
  --token TOKEN     the user's token; else UPBRIDGE_TOKEN, which other users of the machine cannot see
  --feature NAME    what is used (local_rendering)
  --amount N        how many units (1)
  --batch NAME      the batch's name (node-batch)
  --key KEY         its idempotency key (a new one)
  --proto DIR       the contract's folder (../../proto of this file)

Receiving
  --host, --port    where to listen; else HOST and PORT, else 127.0.0.1 and 3000; port 0 takes a free one
  --store FILE      where users are kept (users.json)
  CREATORUP_API_KEY, in the environment only, is what the hub must send as x-api-key

  --json            data for programs instead of lines; of receive, one object per line
  --help            this

It ends with 0, with 1 when the hub refuses or denies, with 2 when it was not called rightly.`;

const OPTIONS = {
  url: { type: 'string', default: process.env.UPBRIDGE_URL || 'http://127.0.0.1:3345' },
  token: { type: 'string', default: process.env.UPBRIDGE_TOKEN },
  feature: { type: 'string', default: 'local_rendering' },
  amount: { type: 'string', default: '1' },
  batch: { type: 'string', default: 'node-batch' },
  key: { type: 'string', default: randomUUID() },
  proto: { type: 'string', default: fileURLToPath(new URL('../../proto', import.meta.url)) },
  host: { type: 'string', default: process.env.HOST || '127.0.0.1' },
  port: { type: 'string', default: process.env.PORT || '3000' },
  store: { type: 'string', default: 'users.json' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
};

/** Called wrongly, which no retry mends. */
class Misuse extends Error {}

async function main() {
  const { values: options, positionals } = parse();
  if (options.help) {
    return console.log(HELP);
  }
  const [command = 'report'] = positionals;
  if (positionals.length > 1 || !['report', 'receive'].includes(command)) {
    throw new Misuse(`there is no command ${positionals.join(' ')}`);
  }
  return command === 'receive' ? listen(options) : ask(options);
}

function parse() {
  try {
    return parseArgs({ options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new Misuse(error.message);
  }
}

async function ask({ url, token, feature, amount, batch, key, proto, json }) {
  if (!token) {
    throw new Misuse('a token is needed: UPBRIDGE_TOKEN or --token');
  }
  if (!URL.canParse(url) || !['http:', 'https:'].includes(new URL(url).protocol)) {
    throw new Misuse('--url must be http://host:port or https://host:port');
  }
  const say = (step, line) => json || console.log(`${step.padEnd(8)} ${line}`);
  const onRetry = (refusal) => console.error(`${refusal.call}: ${refusal.code}: ${refusal.message}; trying again`);
  const hub = new Hub({ url, token, proto, onRetry });
  try {
    const told = await report(hub, { feature, amount: whole('amount', amount, 2 ** 31 - 1), batch, key }, say);
    if (json) {
      console.log(JSON.stringify(told));
    }
    process.exitCode = told.access.has_access ? 0 : 1;
  } catch (error) {
    if (!(error instanceof Refusal)) {
      throw error;
    }
    console[json ? 'log' : 'error'](json ? JSON.stringify({ error }) : error.lines().join('\n'));
    process.exitCode = 1;
  } finally {
    hub.close();
  }
}

async function listen({ host, port, store, json }) {
  const apiKey = process.env.CREATORUP_API_KEY;
  if (!apiKey) {
    throw new Misuse('CREATORUP_API_KEY is needed: the key of the hub');
  }
  const say = (event) => console.log(json ? JSON.stringify(event) : line(event));
  const server = receiver({ apiKey, users: new Users(store), say });
  server.on('error', (error) => {
    console.error(`${host}:${port} cannot be listened on: ${error.message}`);
    process.exitCode = 2;
  });
  server.listen(whole('port', port, 65_535), host, () => {
    const { address, family, port: taken } = server.address();
    say({ listening: `http://${family === 'IPv6' ? `[${address}]` : address}:${taken}` });
  });
  // Calls under way are answered, idle connections are not waited for.
  const stop = () => {
    server.close();
    server.closeIdleConnections();
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
}

function line({
  listening,
  push,
  deleted,
  changed,
  creatorup_user_id: id,
  refused,
  reason,
  message,
  request_id: requestId,
}) {
  if (listening) {
    return `listening at ${listening}`;
  }
  const what = push
    ? `user ${push}: ${changed ? (deleted ? 'deleted' : 'stored') : 'known already'}, here ${id}`
    : `refused with ${refused} (${reason}): ${message}`;
  return `${what}, request ${requestId}`;
}

/** A whole number, or a sentence about what is none. Whether it is a good one is for the hub to say. */
function whole(name, text, largest) {
  const number = Number(text);
  if (text.trim() === '' || !Number.isInteger(number) || Math.abs(number) > largest) {
    throw new Misuse(`--${name} must be a whole number`);
  }
  return number;
}

main().catch((error) => {
  console.error(error instanceof Misuse ? `${error.message}\n\nnode main.mjs --help tells more.` : error);
  process.exitCode = 2;
});
