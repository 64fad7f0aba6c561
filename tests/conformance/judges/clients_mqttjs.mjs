// Scenarios with MQTT.js: clients_mqttjs.mjs TRANSPORT PORT AUTHORITY
//
// A line for each, "ok NAME" or "not ok NAME: why"; the last is "done".
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const mqtt = createRequire(`${process.env.JUDGES_NODE_MODULES}/x`)('mqtt')

const [transport, port, authority] = process.argv.slice(2)
const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[transport]
const url = `${scheme}://localhost:${port}${scheme.startsWith('ws') ? '/mqtt' : ''}`
const secure = transport.endsWith('tls') || transport === 'wss'
const ca = secure ? readFileSync(authority) : undefined
let number = 0

async function client (protocolVersion, more = {}) {
  const options = { protocolVersion, ca, reconnectPeriod: 0, clientId: `js-${process.pid}-${number++}` }
  const client = await mqtt.connectAsync(url, { ...options, ...more })
  client.inbox = []
  client.waiting = []
  client.on('message', (topic, payload, packet) => {
    client.inbox.push({ topic, text: payload.toString(), bytes: payload, packet })
    for (const wake of client.waiting.splice(0)) wake()
  })
  client.receive = async count => {
    while (client.inbox.length < count) await new Promise(resolve => client.waiting.push(resolve))
    return client.inbox.splice(0, count)
  }
  return client
}

const scenarios = {
  async every_qos (version) {
    const one = await client(version)
    await one.subscribeAsync('js/qos/#', { qos: 2 })
    for (const qos of [0, 1, 2]) {
      for (let n = 0; n < 20; n++) await one.publishAsync(`js/qos/${qos}`, String(n), { qos })
    }
    const messages = await one.receive(60)
    for (const qos of [0, 1, 2]) {
      const of = messages.filter(({ topic }) => topic === `js/qos/${qos}`)
      assert.deepEqual(of.map(({ text }) => text), [...Array(20).keys()].map(String))
      assert(of.every(({ packet }) => packet.qos === qos))
    }
    await one.endAsync()
  },

  async large_messages (version) {
    const one = await client(version)
    await one.subscribeAsync('js/large', { qos: 1 })
    const payload = Buffer.alloc(256_000, 'verge')
    await one.publishAsync('js/large', payload, { qos: 1 })
    const [{ bytes }] = await one.receive(1)
    assert(bytes.equals(payload))
    await one.endAsync()
  },

  async retained_and_removed (version) {
    const one = await client(version)
    await one.publishAsync('js/kept', 'kept', { qos: 1, retain: true })
    await one.subscribeAsync('js/kept', { qos: 1 })
    const [{ text, packet }] = await one.receive(1)
    assert.deepEqual([text, packet.retain], ['kept', true])
    await one.publishAsync('js/kept', '', { qos: 1, retain: true })
    await one.endAsync()
  },

  async a_will_is_published (version) {
    const witness = await client(version)
    await witness.subscribeAsync('js/will', { qos: 1 })
    const mortal = await client(version, { will: { topic: 'js/will', payload: 'gone', qos: 1 } })
    mortal.on('error', () => {})
    mortal.stream.destroy()
    assert.equal((await witness.receive(1))[0].text, 'gone')
    await witness.endAsync()
  },

  async a_session_is_resumed (version) {
    const kept = { clientId: `js-kept-${version}-${process.pid}`, clean: false }
    if (version === 5) kept.properties = { sessionExpiryInterval: 600 }
    const first = await client(version, kept)
    await first.subscribeAsync('js/queued', { qos: 2 })
    await first.endAsync()
    const other = await client(version)
    for (const text of ['a', 'b', 'c']) await other.publishAsync('js/queued', text, { qos: 2 })
    await other.endAsync()
    const options = { ...kept, reconnectPeriod: 0, protocolVersion: version, ca }
    const again = mqtt.connect(url, options)
    const got = []
    await new Promise((resolve, reject) => {
      again.on('error', reject)
      again.on('message', (_, payload) => got.push(payload.toString()) === 3 && resolve())
    })
    assert.deepEqual(got, ['a', 'b', 'c'])
    await again.endAsync()
  }
}

for (const version of [4, 5]) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error('late')), 120_000).unref())
    try {
      await Promise.race([scenario(version), late])
      console.log(`ok ${name} ${version}`)
    } catch (error) {
      console.log(`not ok ${name} ${version}: ${error.message.split('\n')[0]}`)
    }
  }
}
console.log('done')
process.exit(0)
