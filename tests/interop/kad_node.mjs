// A js-libp2p node that is a full member of our DHT. Orders and answers are lines of JSON on standard input and output.
//
//   node kad_node.mjs '{"seed": HEX, "port": 0, "isPlain": false}'
//
// Its first line says who it is and where. An order is {"do": NAME, ...}; its answer has what was found, or an error.
// Bytes are hex. With isPlain any value is valid: what is measured beside our nodes.
import './polyfill.mjs'
import { createInterface } from 'node:readline'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import { check, compare, decode } from './envelope.mjs'
import { load } from './kad_load.mjs'

const PROTOCOL = '/bzzz/kad/1.0.0'
const QUERY_MS = 20000
const options = JSON.parse(process.argv[2])

const bytes = (hex) => Buffer.from(hex, 'hex')
const hex = (octets) => Buffer.from(octets).toString('hex')
const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const soon = () => ({ signal: AbortSignal.timeout(QUERY_MS) })
const contact = ({ id, multiaddrs }) => ({ peer: id.toString(), addresses: multiaddrs.map(String) })

// -- envelopes as values ----------------------------------------------------------------------------------------------

async function validateEnvelope (key, value) {
  const envelope = decode(Buffer.from(value))
  if (envelope.key !== Buffer.from(key).toString()) throw new Error(`the envelope belongs to ${envelope.key}`)
  check(envelope, Date.now())
}

/** The place of the latest version in a list of encoded envelopes. */
function selectEnvelope (key, values) {
  const envelopes = values.map((value) => decode(Buffer.from(value)))
  return envelopes.reduce((best, envelope, at) => compare(envelope, envelopes[best]) > 0 ? at : best, 0)
}

// -- the node ---------------------------------------------------------------------------------------------------------

const node = await createLibp2p({
  privateKey: await generateKeyPairFromSeed('Ed25519', bytes(options.seed)),
  addresses: { listen: [`/ip4/127.0.0.1/tcp/${options.port}`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionManager: { inboundConnectionThreshold: 1000 },
  connectionGater: { denyDialMultiaddr: () => false },
  services: {
    identify: identify(),
    ping: ping(),
    kad: kadDHT({
      protocol: PROTOCOL,
      clientMode: false,
      peerInfoMapper: passthroughMapper,
      allowQueryWithZeroPeers: true,
      validators: { ucxl: options.isPlain ? async () => {} : validateEnvelope },
      selectors: { ucxl: options.isPlain ? () => 0 : selectEnvelope }
    })
  }
})
const { kad } = node.services

/** The events of a query, by their names. */
async function events (query) {
  const found = { PEER_RESPONSE: [], FINAL_PEER: [], VALUE: [], QUERY_ERROR: [] }
  for await (const event of query) found[event.name]?.push(event)
  return found
}

const failures = (found) => found.QUERY_ERROR.map(({ from, error }) => ({ peer: from.toString(), error: error.message }))

const orders = {
  async connect ({ address }) {
    const connection = await node.dial(multiaddr(address), soon())
    return { peer: connection.remotePeer.toString() }
  },

  async peers () {
    return { peers: node.getPeers().map(String) }
  },

  /** The peers in the routing table: those that the node asks. */
  async table () {
    const peers = []
    for await (const peer of kad.routingTable.closestPeers(new Uint8Array(32))) peers.push(peer.toString())
    return { peers }
  },

  /** `stored` are the peers that echoed this very value. */
  async put ({ key, value }) {
    const found = await events(kad.put(Buffer.from(key), bytes(value), soon()))
    const isEcho = ({ record }) => record != null && hex(record.value) === value
    return { stored: found.PEER_RESPONSE.filter(isEcho).map(({ from }) => from.toString()), failures: failures(found) }
  },

  /** `value` is the best of all, its own copy among them; `values` says which other peer answered with what. */
  async get ({ key }) {
    const found = await events(kad.get(Buffer.from(key), soon()))
    const answers = found.PEER_RESPONSE.filter(({ messageName, record }) => messageName === 'GET_VALUE' && record != null)
    const values = answers.map(({ from, record }) => ({ peer: from.toString(), value: hex(record.value) }))
    return { value: found.VALUE.map(({ value }) => hex(value)).at(-1) ?? null, values, failures: failures(found) }
  },

  /** Sends the record to the closest peers. Nothing answers it: a peer may take it later than this returns. */
  async provide ({ cid }) {
    const found = await events(kad.provide(CID.parse(cid), soon()))
    return { failures: failures(found) }
  },

  /** Each provider of each answer, its own among them. */
  async findProviders ({ cid }) {
    const found = await events(kad.findProviders(CID.parse(cid), soon()))
    const by = ({ from, providers }) => providers.map((provider) => ({ from: from.toString(), ...contact(provider) }))
    return { providers: found.PEER_RESPONSE.flatMap(by), failures: failures(found) }
  },

  /** Asks the network, whatever the node itself knows. */
  async findPeer ({ peer }) {
    const found = await events(kad.findPeer(peerIdFromString(peer), { ...soon(), useCache: false }))
    return { found: found.FINAL_PEER.map((event) => ({ from: event.from.toString(), ...contact(event.peer) })) }
  },

  async getClosestPeers ({ key }) {
    const found = await events(kad.getClosestPeers(Buffer.from(key), soon()))
    return { peers: found.FINAL_PEER.map((event) => contact(event.peer)), failures: failures(found) }
  },

  /** Closed load on this node; see kad_load.mjs. */
  async load (order) {
    return load(kad, order)
  },

  async stop () {
    await node.stop()
    return {}
  }
}

say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line)
  try {
    say(await orders[order.do](order))
  } catch (error) {
    say({ error: `${error.name}: ${error.message}` })
  }
  if (order.do === 'stop') break
}
process.exit(0)
