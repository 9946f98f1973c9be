// gRPC for the tests: clients and servers made from the .proto files that throng itself reads.

import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../crates/throng-server/proto', import.meta.url));
const OPTIONS = { keepCase: true, longs: Number, defaults: false };

export { grpc };

/** The package of one of the files. */
export function load(file) {
  return grpc.loadPackageDefinition(loader.loadSync(path.join(PROTO, file), OPTIONS)).centrifugal.centrifugo;
}

/** The methods of a client as promises; `key` goes with each call. */
export function promised(client, key) {
  const metadata = new grpc.Metadata();
  if (key !== undefined) metadata.set('authorization', `apikey ${key}`);
  return new Proxy(client, {
    get: (target, name) => {
      if (name === 'raw') return target;
      return (request = {}, more = {}) => {
        const all = metadata.clone();
        Object.entries(more).forEach(([header, value]) => all.set(header, value));
        return promisify(target[name]).call(target, request, all);
      };
    },
  });
}

/** A client of the server API. */
export function apiAt(port, key, options = {}) {
  const { CentrifugoApi } = load('api.proto').api;
  return promised(new CentrifugoApi(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options), key);
}

export const json = (value) => Buffer.from(JSON.stringify(value));
