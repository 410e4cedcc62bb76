// A js-libp2p node that is found, and finds, by @libp2p/mdns. One line of JSON for each thing that happens.
import './polyfill.mjs'
import { noise } from '@libp2p/noise'
import { identify } from '@libp2p/identify'
import { mdns } from '@libp2p/mdns'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const node = await createLibp2p({
  addresses: { listen: ['/ip4/0.0.0.0/tcp/4002'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  peerDiscovery: [mdns({ interval: 2000 })],
  services: { identify: identify() },
  connectionGater: { denyDialMultiaddr: () => false }
})
node.addEventListener('peer:discovery', ({ detail }) => say({
  found: detail.id.toString(),
  addresses: detail.multiaddrs.map(String)
}))
node.addEventListener('peer:connect', ({ detail }) => say({ connected: detail.toString() }))
say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
