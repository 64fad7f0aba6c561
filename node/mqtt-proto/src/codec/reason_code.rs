//! The standard's table of reason codes (2.4), as a table.

use crate::packet::PacketType;

/// Defines the enum and its look-ups from one table: number, name, and the packets that may carry
/// it.
macro_rules! reason_codes {
    ($($number:literal $variant:ident $name:literal [$($packet:ident)*];)*) => {
        /// "A Reason Code is a one byte unsigned value that indicates the result of an operation.
        /// Reason Codes less than 0x80 indicate successful completion." (2.4)
        ///
        /// 0x00 is also "Normal disconnection" in DISCONNECT and "Granted QoS 0" in SUBACK.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = concat!(stringify!($number), " ", $name)] $variant = $number,)*
        }

        impl ReasonCode {
            /// Every code, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code with this number, if the standard defines one.
            #[must_use]
            pub const fn from_byte(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The standard's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The packets the standard lets carry this code.
            #[must_use]
            pub const fn packets(self) -> &'static [PacketType] {
                match self {
                    $(Self::$variant => &[$(PacketType::$packet),*],)*
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success" [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth];
    0x01 GrantedQos1 "Granted QoS 1" [Suback];
    0x02 GrantedQos2 "Granted QoS 2" [Suback];
    0x04 DisconnectWithWill "Disconnect with Will Message" [Disconnect];
    0x10 NoMatchingSubscribers "No matching subscribers" [Puback Pubrec];
    0x11 NoSubscriptionExisted "No subscription existed" [Unsuback];
    0x18 ContinueAuthentication "Continue authentication" [Auth];
    0x19 ReAuthenticate "Re-authenticate" [Auth];
    0x80 UnspecifiedError "Unspecified error"
        [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x81 MalformedPacket "Malformed Packet" [Connack Disconnect];
    0x82 ProtocolError "Protocol Error" [Connack Disconnect];
    0x83 ImplementationSpecificError "Implementation specific error"
        [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" [Connack];
    0x85 ClientIdentifierNotValid "Client Identifier not valid" [Connack];
    0x86 BadUserNameOrPassword "Bad User Name or Password" [Connack];
    0x87 NotAuthorized "Not authorized" [Connack Puback Pubrec Suback Unsuback Disconnect];
    0x88 ServerUnavailable "Server unavailable" [Connack];
    0x89 ServerBusy "Server busy" [Connack Disconnect];
    0x8A Banned "Banned" [Connack];
    0x8B ServerShuttingDown "Server shutting down" [Disconnect];
    0x8C BadAuthenticationMethod "Bad authentication method" [Connack Disconnect];
    0x8D KeepAliveTimeout "Keep Alive timeout" [Disconnect];
    0x8E SessionTakenOver "Session taken over" [Disconnect];
    0x8F TopicFilterInvalid "Topic Filter invalid" [Suback Unsuback Disconnect];
    0x90 TopicNameInvalid "Topic Name invalid" [Connack Puback Pubrec Disconnect];
    0x91 PacketIdentifierInUse "Packet Identifier in use" [Puback Pubrec Suback Unsuback];
    0x92 PacketIdentifierNotFound "Packet Identifier not found" [Pubrel Pubcomp];
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" [Disconnect];
    0x94 TopicAliasInvalid "Topic Alias invalid" [Disconnect];
    0x95 PacketTooLarge "Packet too large" [Connack Disconnect];
    0x96 MessageRateTooHigh "Message rate too high" [Disconnect];
    0x97 QuotaExceeded "Quota exceeded" [Connack Puback Pubrec Suback Disconnect];
    0x98 AdministrativeAction "Administrative action" [Disconnect];
    0x99 PayloadFormatInvalid "Payload format invalid" [Connack Puback Pubrec Disconnect];
    0x9A RetainNotSupported "Retain not supported" [Connack Disconnect];
    0x9B QosNotSupported "QoS not supported" [Connack Disconnect];
    0x9C UseAnotherServer "Use another server" [Connack Disconnect];
    0x9D ServerMoved "Server moved" [Connack Disconnect];
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" [Suback Disconnect];
    0x9F ConnectionRateExceeded "Connection rate exceeded" [Connack Disconnect];
    0xA0 MaximumConnectTime "Maximum connect time" [Disconnect];
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported"
        [Suback Disconnect];
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported"
        [Suback Disconnect];
}

impl ReasonCode {
    /// The number of the wire.
    #[must_use]
    #[inline]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// "Reason Code values of 0x80 or greater indicate failure." (2.4)
    #[must_use]
    #[inline]
    pub const fn is_error(self) -> bool {
        self.byte() >= 0x80
    }

    /// Whether the standard lets this packet carry this code.
    #[must_use]
    pub fn allowed_in(self, packet: PacketType) -> bool {
        self.packets().contains(&packet)
    }

    /// The Connect Return code that tells a 3.1 or 3.1.1 client the same (3.1.1, table 3.1).
    #[must_use]
    pub const fn connect_return_code(self) -> u8 {
        if !self.is_error() {
            return 0;
        }
        match self.byte() {
            0x84 => 1,
            0x85 => 2,
            0x86 | 0x8C => 4,
            0x87 | 0x8A => 5,
            // Whatever else is wrong, the Server is not available to this client now.
            _ => 3,
        }
    }

    /// The reason code a Connect Return code of 3.1 or 3.1.1 stands for.
    #[must_use]
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_its_code_and_no_other_does() {
        assert_eq!(ReasonCode::ALL.len(), 43);
        for number in 0..=u8::MAX {
            let listed = ReasonCode::ALL.iter().find(|code| code.byte() == number);
            assert_eq!(ReasonCode::from_byte(number), listed.copied());
        }
    }

    #[test]
    fn success_and_failure_part_at_0x80() {
        for &code in ReasonCode::ALL {
            assert_eq!(code.is_error(), code.byte() >= 0x80, "{}", code.name());
            assert!(!code.packets().is_empty(), "{}", code.name());
        }
    }

    #[test]
    fn return_codes_of_3_1_1_go_there_and_back() {
        for code in 0..=5 {
            let reason = ReasonCode::from_connect_return_code(code).unwrap();
            assert_eq!(reason.connect_return_code(), code);
        }
        assert_eq!(ReasonCode::from_connect_return_code(6), None);
        assert_eq!(ReasonCode::UseAnotherServer.connect_return_code(), 3);
    }
}
