//! Who messages are by.
//!
//! Users may have the same ClientId, and each has a session of that name of its own. So a message
//! carries the name of its publisher's session as one text, [`ClientKey::author`], and No Local
//! keeps a message from the session that published it [MQTT-3.8.3-3] and from no other.

use verge_model::ClientId;

use super::api::SessionNo;
use super::session::Session;

/// Authors' texts of sessions with a principal. Clients publish in bursts, so the last one asked
/// for is often the next.
#[derive(Debug, Default)]
pub(super) struct Authors {
    last: Option<(SessionNo, ClientId)>,
}

impl Authors {
    /// The author of what a session publishes.
    pub(super) fn of<'a>(&'a mut self, session: &'a Session) -> &'a ClientId {
        if session.client.principal.is_empty() {
            return &session.client.client_id;
        }
        let no = session.no;
        let (known, author) = self.last.get_or_insert_with(|| (no, session.client.author()));
        if *known != no {
            (*known, *author) = (no, session.client.author());
        }
        author
    }
}
