// The official SDK in both encodings. In Protobuf payloads are bytes, which a client here takes
// from and makes of JSON, so that one scenario is run in both.

import { Centrifuge as Json } from 'centrifuge';
import { Centrifuge as Protobuf } from 'centrifuge/build/protobuf';

const PAYLOADS = new Set(['data', 'conn_info', 'chan_info']);

/** The same message, its payloads changed. */
function changed(message, change) {
  if (Array.isArray(message)) return message.map((each) => changed(each, change));
  if (message === null || typeof message !== 'object' || ArrayBuffer.isView(message)) return message;
  const into = Object.create(Object.getPrototypeOf(message));
  for (const [key, value] of Object.entries(message)) {
    into[key] = PAYLOADS.has(key) ? change(value) : changed(value, change);
  }
  return into;
}

const bytes = (value) => (value === undefined ? undefined : Buffer.from(JSON.stringify(value)));
const value = (from) => (from?.length > 0 ? JSON.parse(Buffer.from(from)) : undefined);

class ProtobufOfJson extends Protobuf {
  _formatOverride() {
    super._formatOverride();
    const { encodeCommands, decodeReplies } = this._codec;
    this._codec.encodeCommands = (commands) => encodeCommands.call(this._codec, changed(commands, bytes));
    this._codec.decodeReplies = (data) => changed(decodeReplies.call(this._codec, data), value);
  }
}

/** What the SDK is called in each encoding. */
export const ENCODINGS = [
  { encoding: 'JSON', Centrifuge: Json, binary: false },
  { encoding: 'Protobuf', Centrifuge: ProtobufOfJson, binary: true },
];
