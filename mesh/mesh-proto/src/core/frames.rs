//! What arrives on established links.

use bytes::Bytes;
use verge_model::{NodeKey, Now};

use super::MeshCore;
use crate::output::{Lane, LinkKind, Output};
use crate::wire::Frame;

impl MeshCore {
    /// A frame arrived on a lane.
    pub fn handle_frame(&mut self, peer: NodeKey, lane: Lane, frame: Bytes, now: Now) {
        if !self.fx.established(peer, lane.link()) {
            self.counters.frames_stray += 1;
            return;
        }
        self.counters.frames += 1;
        let taken = match Frame::decode(frame) {
            Ok(Some(frame)) => self.take(peer, frame, now),
            Ok(None) => {
                self.counters.frames_unknown += 1;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = taken {
            self.violate(peer, &reason, now);
        }
        self.settle();
    }

    /// A datagram arrived on the fast link.
    pub fn handle_datagram(&mut self, peer: NodeKey, datagram: &[u8], now: Now) {
        if !self.fx.established(peer, LinkKind::Fast) {
            self.counters.frames_stray += 1;
            return;
        }
        self.membership.handle_datagram(datagram, now.mono, &mut self.fx);
        self.settle();
    }

    fn take(&mut self, peer: NodeKey, frame: Frame, now: Now) -> Result<(), String> {
        let fx = &mut self.fx;
        match frame {
            Frame::Hello(_) => return Err("it greets on a lane".into()),
            Frame::Forward(forward) => self.receivers.handle_forward(peer, forward, fx),
            Frame::ForwardAck(ack) => {
                return self.senders.handle_ack(peer, ack.class, ack.log_id, ack.last, fx);
            }
            Frame::Handover(bytes) => fx.push(Output::Handover { from: peer, bytes }),
            Frame::Uplink(bytes) => fx.push(Output::Uplink { from: peer, bytes }),
            Frame::Transient(record) => fx.push(Output::Transient { from: peer, record }),
            Frame::Leaving => self.membership.handle_leaving(peer, now.mono, fx),
            Frame::Suspected(update) => {
                self.membership.handle_suspected(peer, &update, now.mono, fx);
            }
            Frame::Swim(packet) => self.membership.handle_datagram(&packet, now.mono, fx),
            Frame::RouteOps(_)
            | Frame::RouteChunk(_)
            | Frame::RouteAck(_)
            | Frame::RouteChunkAck(_)
            | Frame::RouteResync(_)
            | Frame::RegistryPut(_)
            | Frame::RegistryAck(_)
            | Frame::RegistryForget(_)
            | Frame::Superseded(_)
            | Frame::LookupAsk(_)
            | Frame::LookupReply(_)
            | Frame::GroupDigests(_)
            | Frame::BucketDigests(_)
            | Frame::BucketKeys(_)
            | Frame::RepairWants(_)
            | Frame::RepairEntries(_)
            | Frame::FlushAsk
            | Frame::FlushDone(_) => return self.take_shared(peer, frame, now),
        }
        Ok(())
    }

    /// Frames of routes and registry: only nodes that share sessions send them.
    fn take_shared(&mut self, peer: NodeKey, frame: Frame, now: Now) -> Result<(), String> {
        if !self.greeted.get(&peer).is_some_and(|info| self.shares_sessions_with(info)) {
            return Err("it speaks of sessions, which this node does not share with it".into());
        }
        let fx = &mut self.fx;
        match frame {
            Frame::RouteOps(ops) => {
                self.flushes.touch();
                return self.replicas.handle_ops(peer, ops, fx);
            }
            Frame::RouteChunk(chunk) => {
                self.flushes.touch();
                return self.replicas.handle_chunk(peer, chunk, fx);
            }
            Frame::RouteAck(ack) => self.own_routes.handle_ack(peer, ack.head),
            Frame::RouteChunkAck(ack) => {
                self.own_routes.handle_chunk_ack(peer, ack.head, ack.index);
            }
            Frame::RouteResync(resync) => self.own_routes.handle_resync(peer, resync.head),
            Frame::RegistryPut(put) => self.registry.handle_put(peer, put, fx),
            Frame::RegistryAck(ack) => self.registry.handle_ack(peer, ack, fx),
            Frame::RegistryForget(forget) => self.registry.handle_forget(&forget, fx),
            Frame::Superseded(superseded) => self.registry.handle_superseded(superseded, fx),
            Frame::LookupAsk(ask) => self.registry.handle_ask(peer, ask, fx),
            Frame::LookupReply(reply) => self.registry.handle_reply(peer, reply, fx),
            Frame::GroupDigests(digests) => self.registry.handle_groups(peer, digests, fx),
            Frame::BucketDigests(digests) => self.registry.handle_buckets(peer, digests, fx),
            Frame::BucketKeys(keys) => self.registry.handle_keys(peer, keys, fx),
            Frame::RepairWants(wants) => self.registry.handle_wants(peer, &wants, fx),
            Frame::RepairEntries(entries) => self.registry.handle_entries(entries, fx),
            Frame::FlushAsk => self.flushes.handle_ask(peer),
            Frame::FlushDone(done) => return self.flushes.handle_done(peer, done, now.mono),
            Frame::Hello(_)
            | Frame::Forward(_)
            | Frame::ForwardAck(_)
            | Frame::Handover(_)
            | Frame::Uplink(_)
            | Frame::Transient(_)
            | Frame::Suspected(_)
            | Frame::Swim(_)
            | Frame::Leaving => {}
        }
        Ok(())
    }
}
