//! Topics and filters with places for what is known of a client.

/// Who a template is filled in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The ClientId.
    pub client_id: &'a str,
    /// The User Name, or the principal that a certificate proves.
    pub username: Option<&'a str>,
    /// The peer's address and port, where they are known.
    pub peer: Option<std::net::SocketAddr>,
}

/// A template that cannot be used. The operator has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder nobody knows.
    #[error(
        "'{0}' is no placeholder; there are ${{clientid}}, ${{username}}, ${{host}}, ${{port}}"
    )]
    Unknown(String),
    /// A group the regular expression does not have.
    #[error("${number} is beyond the {groups} groups of the regular expression")]
    Group {
        /// Its number.
        number: usize,
        /// How many there are.
        groups: usize,
    },
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    ClientId,
    Username,
    Host,
    Port,
    /// A group of a regular expression, from 1.
    Group(usize),
}

/// Text with places for `${clientid}` or `%c`, `${username}` or `%u`, `${host}`, `${port}` and, in
/// rewritten topics, `$1` to `$9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a template; with `groups`, `$1` and so on stand for the groups of a regular expression.
    ///
    /// # Errors
    /// A place that nothing can be put into.
    pub fn parse(text: &str, groups: Option<usize>) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut plain = String::new();
        while let Some(first) = rest.chars().next() {
            let found = place_at(rest, groups)?;
            let Some((piece, len)) = found else {
                plain.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(piece);
            rest = &rest[len..];
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self(pieces))
    }

    /// The text for a client. `None` if something is not known of it, or what is known has a
    /// wildcard: a client must not choose what it is subscribed to by its name.
    #[must_use]
    pub fn fill(
        &self,
        facts: &Facts<'_>,
        group: impl Fn(usize) -> Option<String>,
    ) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Group(number) => {
                    // It is part of what the client named.
                    out.push_str(&group(*number).unwrap_or_default());
                    continue;
                }
                Piece::ClientId => facts.client_id.to_owned(),
                Piece::Username => facts.username?.to_owned(),
                Piece::Host => facts.peer?.ip().to_string(),
                Piece::Port => facts.peer?.port().to_string(),
            };
            if value.contains(['+', '#']) {
                return None;
            }
            out.push_str(&value);
        }
        Some(out)
    }
}

/// The place that begins `text`, and its length.
fn place_at(text: &str, groups: Option<usize>) -> Result<Option<(Piece, usize)>, TemplateError> {
    if let Some(rest) = text.strip_prefix("${") {
        let Some(end) = rest.find('}') else { return Ok(None) };
        let piece = match &rest[..end] {
            "clientid" => Piece::ClientId,
            "username" => Piece::Username,
            "host" => Piece::Host,
            "port" => Piece::Port,
            _ => return Err(TemplateError::Unknown(text[..end + 3].to_owned())),
        };
        return Ok(Some((piece, end + 3)));
    }
    let group = |digit: &char| digit.to_digit(10).filter(|digit| *digit > 0);
    let digit = text.strip_prefix('$').and_then(|rest| rest.chars().next());
    Ok(match (digit.as_ref().and_then(group), groups) {
        (Some(number), Some(groups)) => {
            let number = number as usize;
            if number > groups {
                return Err(TemplateError::Group { number, groups });
            }
            Some((Piece::Group(number), 2))
        }
        _ if text.starts_with("%c") => Some((Piece::ClientId, 2)),
        _ if text.starts_with("%u") => Some((Piece::Username, 2)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            client_id: "car",
            username: Some("ann"),
            peer: Some(([192, 0, 2, 1], 5_000).into()),
        }
    }

    #[test]
    fn places_are_filled_in() {
        let filled = |text: &str| {
            let template = Template::parse(text, None).unwrap();
            template.fill(&facts(), |_| None).unwrap()
        };
        for (text, wanted) in [
            ("inbox/${clientid}/#", "inbox/car/#"),
            ("%u/%c/${host}/${port}", "ann/car/192.0.2.1/5000"),
            ("plain", "plain"),
            ("$SYS/$1/${", "$SYS/$1/${"),
            ("ä%cö", "äcarö"),
            ("", ""),
        ] {
            assert_eq!(filled(text), wanted, "{text}");
        }
        let groups = Template::parse("z/$2/$1", Some(2)).unwrap();
        let filled = groups.fill(&facts(), |group| Some(format!("g{group}")));
        assert_eq!(filled.as_deref(), Some("z/g2/g1"));
    }

    #[test]
    fn security_a_name_with_a_wildcard_fills_in_nothing() {
        let template = Template::parse("inbox/${clientid}/#", None).unwrap();
        for client_id in ["+", "#", "a/+"] {
            assert_eq!(template.fill(&Facts { client_id, ..facts() }, |_| None), None);
        }
        let template = Template::parse("%u", None).unwrap();
        assert_eq!(template.fill(&Facts { username: None, ..facts() }, |_| None), None);
    }

    #[test]
    fn what_nothing_can_be_put_into_is_named() {
        let error = Template::parse("a/${clientId}", None).unwrap_err();
        assert_eq!(error, TemplateError::Unknown("${clientId}".into()));
        let error = Template::parse("a/$2", Some(1)).unwrap_err();
        assert_eq!(error, TemplateError::Group { number: 2, groups: 1 });
        assert!(error.to_string().contains("$2 is beyond the 1 groups"), "{error}");
    }
}
