// Stands where Aedes' tests import their broker from: every stream they hand to it is joined to the
// broker behind JUDGED_PORT. What they want of a broker in their own process cannot be had from
// outside; asking for it throws NOT_PORTABLE, and that test is counted as not portable.
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import mqtt from 'mqtt-packet'

const port = Number(process.env.JUDGED_PORT)
const ids = new Set()

const notPortable = what => new Error(`NOT_PORTABLE ${what}`)

// A client that speaks for the stand-in itself.
class Client {
  #waiting = []
  packets = []

  constructor (clientId) {
    this.socket = connect(port, '127.0.0.1').setNoDelay().on('error', () => {})
    const parser = mqtt.parser({ protocolVersion: 4 })
    parser.on('packet', packet => {
      this.packets.push(packet)
      for (const wake of this.#waiting.splice(0)) wake()
    })
    this.socket.on('data', bytes => parser.parse(bytes))
    this.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId })
  }

  send (packet) {
    this.socket.write(mqtt.generate(packet))
  }

  async receive (cmd) {
    for (;;) {
      const place = this.packets.findIndex(packet => packet.cmd === cmd)
      if (place >= 0) return this.packets.splice(place, 1)[0]
      await new Promise(resolve => this.#waiting.push(resolve))
    }
  }

  async settle () {
    this.send({ cmd: 'pingreq' })
    await this.receive('pingresp')
  }

  end () {
    this.socket.end(mqtt.generate({ cmd: 'disconnect' }))
  }
}

// Sessions and retained messages of earlier tests end: each begins with a new broker.
async function forget () {
  for (const id of ids) {
    const client = new Client(id)
    await client.receive('connack')
    client.end()
  }
  ids.clear()
  const sweeper = new Client('judge-sweeper')
  await sweeper.receive('connack')
  sweeper.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] })
  await sweeper.receive('suback')
  await sweeper.settle()
  await delay(20)
  for (const { cmd, retain, topic } of [...sweeper.packets]) {
    if (cmd === 'publish' && retain) sweeper.send({ cmd, topic, payload: '', qos: 0, retain })
  }
  await sweeper.settle()
  sweeper.end()
}

class Broker {
  #sockets = new Set()
  #accepted = new Set()
  #publisher
  id = 'behind-a-port'
  closed = false

  get connectedClients () {
    return this.#accepted.size
  }

  listen () {
    return forget()
  }

  handle (stream) {
    const socket = connect(port, '127.0.0.1').setNoDelay()
    this.#sockets.add(socket)
    const sent = mqtt.parser().on('error', () => {})
    sent.on('packet', ({ cmd, clientId }) => cmd === 'connect' && clientId && ids.add(clientId))
    const answered = mqtt.parser({ protocolVersion: 4 }).on('error', () => {})
    answered.on('packet', ({ cmd, returnCode }) => {
      if (cmd === 'connack' && !returnCode) this.#accepted.add(socket)
    })
    stream.on('data', bytes => {
      try { sent.parse(bytes) } catch {}
      socket.write(bytes)
    })
    stream.on('end', () => socket.end()).on('error', () => socket.destroy())
    stream.on('close', () => socket.destroy())
    socket.on('data', bytes => {
      try { answered.parse(bytes) } catch {}
      if (!stream.destroyed) stream.write(bytes)
    })
    socket.on('error', () => {}).on('close', () => {
      this.#accepted.delete(socket)
      stream.destroy()
    })
    return only({}, 'client')
  }

  // That nothing goes wrong inside the broker is a promise kept by doing nothing.
  on (event) {
    if (new Error().stack.includes('noError')) return this
    throw notPortable(`event ${event}`)
  }

  publish (packet, client, done = client) {
    const { topic, payload = '', qos = 0, retain = false } = packet
    const publish = async () => {
      if (!this.#publisher) {
        this.#publisher = new Client('judge-publisher')
        await this.#publisher.receive('connack')
      }
      const client = this.#publisher
      client.send({ cmd: 'publish', topic, payload, qos, retain, messageId: 1 })
      if (qos === 1) await client.receive('puback')
      if (qos === 2) {
        await client.receive('pubrec')
        client.send({ cmd: 'pubrel', messageId: 1 })
        await client.receive('pubcomp')
      }
      await client.settle()
    }
    publish().then(() => typeof done === 'function' && done(), done)
  }

  close (done) {
    this.closed = true
    this.#publisher?.end()
    for (const socket of this.#sockets) socket.destroy()
    setImmediate(() => done?.())
  }
}

// An object that has nothing but what it has.
function only (object, name) {
  return new Proxy(object, {
    get (of, key) {
      if (typeof key === 'symbol' || key === 'then' || key === 'constructor') return of[key]
      if (!(key in of)) throw notPortable(`${name}.${key}`)
      return typeof of[key] === 'function' ? of[key].bind(of) : of[key]
    },
    set (of, key) {
      throw notPortable(`${name}.${String(key)} =`)
    }
  })
}

export class Aedes {
  constructor (options = {}) {
    const unknown = Object.keys(options).find(key => key !== 'concurrency')
    if (unknown) throw notPortable(`option ${unknown}`)
    return only(new Broker(), 'broker')
  }

  static async createBroker (options) {
    const broker = new Aedes(options)
    await forget()
    return broker
  }
}

export default function () {
  throw new Error('use Aedes.createBroker')
}
