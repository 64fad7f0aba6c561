//! A connection and, over QUIC, further streams of it.
//!
//! Each further stream is a [`Connection`] with a session of its own, since packet identifiers, order
//! and subscriptions are a stream's own; who the client is, its keep alive and its goodbye are the
//! control stream's. What is lost on one stream keeps no other waiting.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use verge_mqtt_proto::{QoS, ReasonCode};

use super::event::{Event, SessionOptions};
use super::net::{Connection, NetError};
use super::outgoing::{Publication, Ticket};
use super::session::ClientSession;

/// Most further streams: what a node lets a client open at first, beside the control stream.
pub const STREAMS_MAX: u16 = 9;

/// Sessions of further streams, for a client with these options.
#[must_use]
pub fn sessions(options: &SessionOptions, count: u16) -> Vec<ClientSession> {
    (0..count).map(|_| ClientSession::new(options.clone())).collect()
}

/// A connection with its streams.
pub struct Streams<'s> {
    control: Connection<'s>,
    further: Vec<Connection<'s>>,
    /// The one that gets the next publication.
    turn: usize,
}

impl<'s> Streams<'s> {
    /// Opens a stream for each session.
    ///
    /// # Errors
    /// The transport has no streams, or failed.
    pub async fn open(
        control: Connection<'s>,
        sessions: &'s mut [ClientSession],
    ) -> Result<Self, NetError> {
        let mut streams = Self { control, further: Vec::with_capacity(sessions.len()), turn: 0 };
        let share = sessions.len() + 1;
        for session in sessions {
            streams.further.push(streams.control.open_stream(session, share).await?);
        }
        Ok(streams)
    }

    /// Publishes a message on the next stream in turn, or on the only one.
    ///
    /// # Errors
    /// The stream holds as many publications as it may.
    pub fn publish(&mut self, publication: Publication) -> Result<Ticket, NetError> {
        let place = self.turn;
        self.turn = (place + 1) % self.further.len().max(1);
        self.further.get_mut(place).unwrap_or(&mut self.control).publish(publication)
    }

    /// Subscribes, each stream to its part of the filters; gives an answer for each filter.
    ///
    /// # Errors
    /// The connection ended before.
    pub async fn subscribe(
        &mut self,
        filters: &[(&str, QoS)],
    ) -> Result<Vec<ReasonCode>, NetError> {
        if self.further.is_empty() {
            return self.control.subscribe(filters).await;
        }
        let mut granted = vec![ReasonCode::UnspecifiedError; filters.len()];
        let step = self.further.len();
        for (first, stream) in self.further.iter_mut().enumerate().take(filters.len()) {
            let places: Vec<usize> = (first..filters.len()).step_by(step).collect();
            let part: Vec<_> = places.iter().map(|place| filters[*place]).collect();
            let answers = stream.subscribe(&part).await?;
            for (place, answer) in places.into_iter().zip(answers) {
                granted[place] = answer;
            }
        }
        Ok(granted)
    }

    /// The next event of any stream; dropping the future loses nothing.
    ///
    /// # Errors
    /// A stream, or the connection, is of no further use.
    pub async fn next(&mut self) -> Result<Event, NetError> {
        if self.further.is_empty() {
            return self.control.next().await;
        }
        let all = std::iter::once(&mut self.control).chain(&mut self.further);
        let mut waiting: Vec<Pin<Box<_>>> = all.map(|stream| Box::pin(stream.next())).collect();
        poll_fn(|cx| {
            for stream in &mut waiting {
                if let Poll::Ready(event) = stream.as_mut().poll(cx) {
                    return Poll::Ready(event);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Publications the server has not taken over yet.
    #[must_use]
    pub fn publications(&self) -> usize {
        self.control.publications()
            + self.further.iter().map(Connection::publications).sum::<usize>()
    }

    /// Ends the further streams, so that the goodbye overtakes nothing of theirs, and says it.
    ///
    /// # Errors
    /// The transport failed before.
    pub async fn finish(self) -> Result<(), NetError> {
        for stream in self.further {
            stream.end_stream().await?;
        }
        self.control.disconnect().await
    }

    /// Says goodbye. Subscriptions of a session that outlives the connection stay: they would end
    /// with their streams.
    ///
    /// # Errors
    /// The transport failed before.
    pub async fn disconnect(self) -> Result<(), NetError> {
        let Self { control, further, .. } = self;
        let outcome = control.disconnect().await;
        drop(further);
        outcome
    }
}
