//! Users: by User Name and Password, and by SCRAM (MQTT 5.0, 4.12).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use verge_mqtt_proto::ReasonCode;

use super::bed::Bed;
use super::client::{Client, Who, post, v4, v5, want};
use crate::authn::Authn;
use crate::authn::users::{Users, prepare};
use crate::authn::verifier::{ITERATIONS_MIN, Verifier};
use crate::shard::api::Terms;

#[test]
fn a_user_with_the_right_password_is_served_and_no_other() {
    let rows = [
        (v5("c").user("ann", "secret"), "connack present=0"),
        (v5("c").user("ann", "Secret"), "connack Bad User Name or Password"),
        (v5("c").user("ghost", "secret"), "connack Bad User Name or Password"),
        (v5("c").user("a\u{7}", "secret"), "connack Bad User Name or Password"),
        (v5("c").password_only("secret"), "connack Bad User Name or Password"),
        (v4("c").user("ann", "secret"), "connack present=0"),
        (v4("c").user("ann", ""), "connack Bad User Name or Password"),
        (v5("c"), "connack present=0"),
    ];
    for (who, line) in rows {
        let mut bed = bed();
        let client = bed.connect(&who);
        assert_eq!(bed.got(client)[0], line, "{who:?}");
    }
}

#[test]
fn security_without_credentials_nobody_is_served_where_that_is_not_allowed() {
    for (who, line) in [
        (v5("c"), "connack Not authorized"),
        (v4("c"), "connack Not authorized"),
        (v5("c").user("ann", "secret"), "connack present=0"),
    ] {
        let mut bed = bed();
        bed.anonymous = false;
        let client = bed.connect(&who);
        assert_eq!(bed.got(client)[0], line);
    }
}

#[test]
fn a_users_sessions_are_its_own() {
    let mut bed = bed();
    let ann = bed.connect(&v5("c").persistent().user("ann", "secret"));
    bed.send(ann, ann.subscribe(1, want("t", 1)));
    let bob = bed.connect(&v5("c").persistent().user("bob", "hunter2"));
    bed.expect(bob, &["connack present=0"]);
    bed.expect(ann, &["connack present=0", "suback 1 [1]"]);
    let ann = bed.connect(&v5("c").persistent().user("ann", "secret"));
    bed.expect(ann, &["connack present=1"]);
}

#[test]
fn no_local_is_about_a_session_and_not_another_users_mqtt_3_8_3_3() {
    let mut bed = bed();
    let ann = bed.connect(&v5("c").user("ann", "secret"));
    bed.send(ann, ann.subscribe(1, want("t", 0).no_local()));
    let bob = bed.connect(&v5("c").user("bob", "hunter2"));
    let nobody = bed.connect(&v5("c"));
    bed.got(ann);
    for (by, text) in [(ann, "own"), (bob, "bob's"), (ann, "own"), (nobody, "nobody's")] {
        bed.send(by, by.publish(post("t", text)));
    }
    bed.expect(ann, &["publish t \"bob's\"", "publish t \"nobody's\""]);
    // The other way round: nobody's session is not ann's.
    bed.send(nobody, nobody.subscribe(1, want("t", 0).no_local()));
    bed.send(ann, ann.publish(post("t", "ann's")));
    bed.send(nobody, nobody.publish(post("t", "own")));
    bed.expect(nobody, &["connack present=0", "suback 1 [0]", "publish t \"ann's\""]);
}

#[test]
fn security_a_wrong_password_takes_nothing_over() {
    let mut bed = bed();
    let ann = bed.connect(&v5("c").user("ann", "secret"));
    bed.connect(&v5("c").user("ann", "guess"));
    bed.connect(&v5("c").scram("n,,n=ann,r=x"));
    bed.expect(ann, &["connack present=0"]);
    let failed = bed.shared.counters.snapshot().authentications_failed;
    assert_eq!(failed.into_iter().collect::<Vec<_>>(), [("password", 1)]);
}

#[test]
fn a_client_that_knows_the_password_need_not_say_it_mqtt_4_12_0_1_to_5() {
    let mut bed = bed();
    let (client, last) = scram(&mut bed, &v5("c"), "ann", "secret");
    bed.send(client, client.auth(ReasonCode::ContinueAuthentication, &last));
    // The server proves that it knows the user.
    let got = bed.got(client);
    assert!(got[0].starts_with("connack present=0 auth=SCRAM-SHA-256 v="), "{got:?}");
    bed.send(client, client.publish(post("t", "m").q1(1)));
    bed.expect(client, &["puback 1 No matching subscribers"]);
}

#[test]
fn security_a_client_that_does_not_know_the_password_is_not_authorized() {
    for (user, password) in [("ann", "guess"), ("ghost", "secret")] {
        let mut bed = bed();
        let (client, last) = scram(&mut bed, &v5("c"), user, password);
        bed.send(client, client.auth(ReasonCode::ContinueAuthentication, &last));
        bed.expect(client, &["connack Not authorized", "closed"]);
    }
}

#[test]
fn methods_that_are_not_known_are_bad_mqtt_4_12_0_1() {
    for (mut bed, who) in
        [(bed(), v5("c").method("GS2-KRB5", "")), (Bed::new(1), v5("c").scram("n,,n=ann,r=x"))]
    {
        let client = bed.connect(&who);
        bed.expect(client, &["connack Bad authentication method", "closed"]);
    }
    let mut bed = bed();
    let client = bed.connect(&v5("c").scram("no such message"));
    bed.expect(client, &["connack Not authorized", "closed"]);
}

#[test]
fn security_nothing_but_auth_comes_before_connack_mqtt_3_1_2_30() {
    let mut bed = bed();
    let (client, _) = scram(&mut bed, &v5("c"), "ann", "secret");
    bed.send(client, client.publish(post("t", "m")));
    bed.expect(client, &["connack Protocol Error", "closed"]);

    let (client, last) = scram(&mut bed, &v5("c"), "ann", "secret");
    bed.send(client, client.auth(ReasonCode::ReAuthenticate, &last));
    bed.expect(client, &["connack Protocol Error", "closed"]);
}

#[test]
fn security_an_exchange_is_waited_for_as_long_as_a_connect() {
    let mut bed = bed();
    let (client, _) = scram(&mut bed, &v5("c"), "ann", "secret");
    bed.wait(Duration::from_secs(9));
    bed.expect(client, &[]);
    bed.wait(Duration::from_secs(2));
    bed.expect(client, &["closed"]);
}

#[test]
fn a_client_proves_itself_again_while_its_messages_go_on_mqtt_4_12_1_1() {
    let mut bed = bed();
    let client = connected(&mut bed);
    bed.send(client, client.auth(ReasonCode::ReAuthenticate, "n,,n=ann,r=again"));
    let challenge = bed.got(client).remove(0);
    let last = client_final("secret", "n=ann,r=again", data_of(&challenge));
    bed.send(client, client.publish(post("t", "m").q1(1)));
    bed.expect(client, &["puback 1 No matching subscribers"]);
    bed.send(client, client.auth(ReasonCode::ContinueAuthentication, &last));
    let got = bed.got(client);
    assert!(got[0].starts_with("auth Success SCRAM-SHA-256 v="), "{got:?}");
}

#[test]
fn security_a_client_that_fails_to_prove_itself_again_is_disconnected_mqtt_4_12_1_2() {
    let not_authorized = ["disconnect Not authorized", "closed"];
    // Another user, at the first step.
    let mut bed = bed();
    let client = connected(&mut bed);
    bed.send(client, client.auth(ReasonCode::ReAuthenticate, "n,,n=bob,r=x"));
    bed.expect(client, &not_authorized);
    // A wrong proof.
    let client = connected(&mut bed);
    bed.send(client, client.auth(ReasonCode::ReAuthenticate, "n,,n=ann,r=x"));
    let challenge = bed.got(client).remove(0);
    let last = client_final("guess", "n=ann,r=x", data_of(&challenge));
    bed.send(client, client.auth(ReasonCode::ContinueAuthentication, &last));
    bed.expect(client, &not_authorized);
    // None in time.
    let client = connected(&mut bed);
    bed.send(client, client.auth(ReasonCode::ReAuthenticate, "n,,n=ann,r=x"));
    bed.got(client);
    bed.wait(Duration::from_secs(11));
    bed.expect(client, &not_authorized);
}

#[test]
fn security_auth_that_nothing_led_to_is_a_protocol_error_mqtt_4_12_0_7_mqtt_4_12_1_1() {
    let protocol_error = ["disconnect Protocol Error", "closed"];
    let mut bed = bed();
    for reason in [ReasonCode::ReAuthenticate, ReasonCode::ContinueAuthentication] {
        let client = bed.connect(&v5("c").user("ann", "secret"));
        bed.got(client);
        bed.send(client, client.auth(reason, "n,,n=ann,r=x"));
        bed.expect(client, &protocol_error);
    }
    let client = connected(&mut bed);
    bed.send(client, client.auth(ReasonCode::ContinueAuthentication, "c=biws"));
    bed.expect(client, &protocol_error);
    let client = connected(&mut bed);
    for _ in 0..2 {
        bed.send(client, client.auth(ReasonCode::ReAuthenticate, "n,,n=ann,r=x"));
    }
    assert_eq!(bed.got(client)[1..], protocol_error);
}

/// Made once: a verifier costs milliseconds.
static USERS: LazyLock<Users> = LazyLock::new(|| {
    let mut users = Users::default();
    for (name, password) in [("ann", "secret"), ("bob", "hunter2")] {
        let verifier = Verifier::of_password(password.as_bytes(), b"salt", ITERATIONS_MIN);
        users.put(prepare(name).unwrap(), verifier.unwrap());
    }
    users
});

fn bed() -> Bed {
    let authn = Arc::new(Authn::new(USERS.clone(), &[7; 32]));
    Bed::with(Terms { authn: Some(authn), ..Terms::default() })
}

/// A client that was served after an exchange as "ann".
fn connected(bed: &mut Bed) -> Client {
    let (client, last) = scram(bed, &v5("c"), "ann", "secret");
    bed.send(client, client.auth(ReasonCode::ContinueAuthentication, &last));
    assert!(bed.got(client)[0].starts_with("connack present=0"));
    client
}

/// Begins an exchange; what the client would answer.
fn scram(bed: &mut Bed, who: &Who, user: &str, password: &str) -> (Client, String) {
    let bare = format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL");
    let first: &'static str = format!("n,,{bare}").leak();
    let client = bed.connect(&who.clone().scram(first));
    let challenge = bed.got(client).remove(0);
    let last = client_final(password, &bare, data_of(&challenge));
    (client, last)
}

/// The data of an AUTH, as the transcript shows it.
fn data_of(line: &str) -> &str {
    line.strip_prefix("auth Continue authentication SCRAM-SHA-256 ").expect("a challenge")
}

/// The client's side (RFC 5802, 3).
fn client_final(password: &str, bare: &str, challenge: &str) -> String {
    let mut attributes = challenge.split(',').map(|attribute| &attribute[2..]);
    let (nonce, salt, iterations) =
        (attributes.next().unwrap(), attributes.next().unwrap(), attributes.next().unwrap());
    let sha256 = |key: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut salted = [0; 32];
    let salt = BASE64.decode(salt).unwrap();
    let iterations = iterations.parse().unwrap();
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, &salt, password.as_bytes(), &mut salted);
    let client_key = hmac::sign(&sha256(&salted), b"Client Key");
    let stored = digest::digest(&digest::SHA256, client_key.as_ref());
    let unproved = format!("c=biws,r={nonce}");
    let signed = format!("{bare},{challenge},{unproved}");
    let signature = hmac::sign(&sha256(stored.as_ref()), signed.as_bytes());
    let proof: Vec<u8> =
        client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    format!("{unproved},p={}", BASE64.encode(proof))
}
