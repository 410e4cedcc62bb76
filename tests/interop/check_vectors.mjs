// Checks the golden vectors against keys.mjs, ucxl.mjs and envelope.mjs. Prints how many were checked and what differs.
//
//   node check_vectors.mjs FOLDER
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import { check, compare, decode, seal } from './envelope.mjs'
import { multihashOf, privateKeyOf, publicKeyOf, sign, verify } from './keys.mjs'
import { isCanonical, keyOf } from './ucxl.mjs'

const vectors = (name) => JSON.parse(readFileSync(join(process.argv[2], `${name}.json`), 'utf8'))
const bytes = (hex) => Buffer.from(hex, 'hex')
const place = (octets) => createHash('sha256').update(octets).digest('hex')

const differs = []
let checked = 0
function same (what, found, expected) {
  checked++
  if (found !== expected) differs.push(`${what}: ${found}, not ${expected}`)
}

/** The code of what a call throws; '' when it throws nothing. */
function codeOf (call) {
  try {
    call()
    return ''
  } catch (error) {
    return error.code ?? String(error)
  }
}

const { keys, refused_peer_ids: refusedPeerIds, refused_signatures: refusedSignatures } = vectors('keys')
for (const vector of keys) {
  const key = privateKeyOf(bytes(vector.seed))
  same(`key ${vector.name}`, key.publicKey.toString('hex'), vector.public_key)
  same(`peer id ${vector.name}`, key.peerId, vector.peer_id)
  same(`multihash ${vector.name}`, multihashOf(publicKeyOf(vector.peer_id)).toString('hex'), vector.multihash)
  same(`signature ${vector.name}`, sign(key, bytes(vector.message)).toString('hex'), vector.signature)
  same(`verified ${vector.name}`, verify(vector.peer_id, bytes(vector.message), bytes(vector.signature)), true)
}
for (const peerId of refusedPeerIds) same(`peer id ${peerId}`, publicKeyOf(peerId), null)
for (const vector of refusedSignatures) {
  same(`signature with ${vector.name}`, verify(vector.peer_id, bytes(vector.message), bytes(vector.signature)), false)
}

const { valid, invalid } = vectors('ucxl')
for (const vector of valid) {
  same(`canonical ${vector.text}`, isCanonical(vector.canonical), !vector.is_pattern)
  if (vector.text !== vector.canonical) same(`not canonical ${vector.text}`, isCanonical(vector.text), false)
  if (vector.key !== null) same(`key of ${vector.text}`, keyOf(vector.canonical), vector.key)
}
for (const { text } of invalid) same(`address ${JSON.stringify(text)}`, isCanonical(text), false)

const { envelopes, order, kept, refused, forged } = vectors('envelopes')
for (const vector of envelopes) {
  const sealed = seal(bytes(vector.seed), {
    address: vector.address,
    content: bytes(vector.content),
    contentType: vector.content_type,
    version: BigInt(vector.version),
    parents: vector.parents.map(bytes),
    meta: vector.meta,
    deleted: vector.deleted
  })
  same(`sealed ${vector.name}`, sealed.toString('hex'), vector.encoded)
}
for (const vector of [...envelopes, ...kept]) {
  const envelope = decode(bytes(vector.encoded))
  const { digest, key, author, version, content } = envelope
  same(`verified ${vector.name}`, codeOf(() => check(envelope, version >> 16n)), '')
  same(`ahead ${vector.name}`, codeOf(() => check(envelope, (version >> 16n) - 60001n)), 'UCXL-422-UNPROCESSABLE')
  same(`digest ${vector.name}`, digest.toString('hex'), vector.digest)
  same(`key ${vector.name}`, key, vector.key)
  same(`author ${vector.name}`, author, vector.author)
  same(`version ${vector.name}`, String(version), vector.version)
  same(`content ${vector.name}`, content.toString('hex'), vector.content)
}
const named = new Map(envelopes.map((vector) => [vector.name, decode(bytes(vector.encoded))]))
const sorted = [...named].sort(([, one], [, other]) => compare(one, other)).map(([name]) => name)
same('the total order', sorted.join(), order.join())
for (const vector of refused) same(`refused ${vector.name}`, codeOf(() => decode(bytes(vector.encoded))), vector.code)
for (const vector of forged) {
  const envelope = decode(bytes(vector.encoded))
  same(`forged ${vector.name}`, codeOf(() => check(envelope, Date.now())), 'UCXL-422-UNPROCESSABLE')
}

const places = vectors('placement')
for (const vector of places.peers) {
  same(`place of ${vector.peer_id}`, place(multihashOf(publicKeyOf(vector.peer_id))), vector.place)
}
for (const vector of places.keys) same(`place of ${vector.key}`, place(vector.key), vector.place)

process.stdout.write(JSON.stringify({ checked, differs }) + '\n')
