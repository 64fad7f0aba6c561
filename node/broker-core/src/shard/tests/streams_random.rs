//! Streams opened, ended, lost and restarted at random: after every step the invariants hold and
//! the books balance, and in the end a client that answers everything is owed nothing.

use verge_mqtt_proto::AckKind::{Puback, Pubcomp, Pubrec, Pubrel};

use super::bed::Bed;
use super::client::{Client, post, v5, want};
use super::streams::OnStream;

const STEPS: usize = 150;
const SEEDS: u64 = 100;
const FILTERS: [&str; 4] = ["a", "+", "b", "$share/g/a"];

struct World {
    bed: Bed,
    seed: u64,
    car: Client,
    lamp: Client,
    streams: Vec<OnStream>,
    next_stream: u64,
    next_id: u16,
}

#[test]
fn nothing_is_lost_in_the_books_whatever_becomes_of_streams() {
    for seed in 1..=SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world = world.step();
        }
        world.drain();
        assert_eq!((world.bed.held(), world.bed.rows()), (0, (0, 0)), "seed {seed}");
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::new(2);
        let (car, lamp) = (bed.connect(&v5("car").persistent()), bed.connect(&v5("lamp")));
        Self { bed, seed, car, lamp, streams: Vec::new(), next_stream: 4, next_id: 1 }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % sides
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id % 60_000 + 1;
        self.next_id
    }

    fn any_stream(&mut self) -> Option<OnStream> {
        let count = self.streams.len() as u64;
        (count > 0).then(|| self.roll(count)).map(|place| self.streams[place as usize])
    }

    fn step(mut self) -> Self {
        let (filter, qos) = (FILTERS[self.roll(4) as usize], self.roll(3) as u8);
        let topic = ["a", "b"][self.roll(2) as usize];
        let (car, lamp, id) = (self.car, self.lamp, self.id());
        let message = match self.roll(3) {
            0 => post(topic, "m"),
            1 => post(topic, "m").q1(id),
            _ => post(topic, "m").q2(id),
        };
        match self.roll(14) {
            0 | 1 if self.streams.len() < 6 => {
                let stream = self.bed.open_data(car, self.next_stream);
                self.next_stream += 4;
                self.streams.push(stream);
            }
            2 => self.bed.send(car, car.subscribe(id, want(filter, qos))),
            3 => self.bed.send(car, car.unsubscribe(id, filter)),
            4 | 5 => {
                if let Some(on) = self.any_stream() {
                    self.bed.send_on(on, car.subscribe(id, want(filter, qos)));
                }
            }
            6 => {
                if let Some(on) = self.any_stream() {
                    self.bed.send_on(on, car.unsubscribe(id, filter));
                }
            }
            7 => {
                if let Some(on) = self.any_stream() {
                    self.bed.send_on(on, car.publish(message));
                }
            }
            8 => self.end_a_stream(),
            9 => {
                if let Some(on) = self.any_stream() {
                    let stalled = self.roll(2) == 0;
                    self.bed.stall(on, stalled);
                }
            }
            10 => {
                self.answer();
            }
            11 if self.roll(4) == 0 => self = self.lose_or_crash(),
            _ => self.bed.send(lamp, lamp.publish(message)),
        }
        let lines = self.bed.got(self.lamp);
        for id in ids(&lines, "pubrec ") {
            self.bed.send(self.lamp, self.lamp.ack(Pubrel, id));
        }
        self
    }

    fn end_a_stream(&mut self) {
        let Some(on) = self.any_stream() else { return };
        self.streams.retain(|other| other.number() != on.number());
        if self.roll(2) == 0 {
            self.bed.finish(on);
        } else {
            self.bed.reset(on);
        }
    }

    fn lose_or_crash(mut self) -> Self {
        self.streams.clear();
        if self.roll(2) == 0 {
            self.bed.lose(self.car);
        } else {
            self.bed = self.bed.crash();
            self.lamp = self.bed.connect(&v5("lamp"));
        }
        self.car = self.bed.connect(&v5("car").persistent());
        self
    }

    /// Answers all that came, each on its stream; true if there was anything.
    fn answer(&mut self) -> bool {
        let (bed, car) = (&mut self.bed, self.car);
        let lines = bed.got(car);
        let mut any = false;
        for bytes in answers(car, &lines) {
            bed.send(car, bytes);
            any = true;
        }
        for on in self.streams.clone() {
            let lines = bed.got_on(on);
            for bytes in answers(car, &lines) {
                bed.send_on(on, bytes);
                any = true;
            }
        }
        any
    }

    fn drain(&mut self) {
        for on in self.streams.clone() {
            self.bed.stall(on, false);
        }
        while self.answer() {}
        // What was released, or refused as unknown, before the last life is told again.
        self.streams.clear();
        self.bed.lose(self.car);
        self.car = self.bed.connect(&v5("car").persistent());
        while self.answer() {}
    }
}

fn answers(car: Client, lines: &[String]) -> Vec<bytes::BytesMut> {
    let mut all = Vec::new();
    for line in lines {
        let id = line.split(" id=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        match (line.split(' ').collect::<Vec<_>>().as_slice(), id) {
            (["publish", _, "q1", ..], Some(id)) => all.push(car.ack(Puback, id)),
            (["publish", _, "q2", ..], Some(id)) => all.push(car.ack(Pubrec, id)),
            (["pubrel", id], _) => all.push(car.ack(Pubcomp, id.parse().unwrap())),
            (["pubrec", id, ..], _) => all.push(car.ack(Pubrel, id.parse().unwrap())),
            _ => {}
        }
    }
    all
}

/// The packet ids of lines that begin so.
fn ids(lines: &[String], start: &str) -> Vec<u16> {
    let of = |line: &String| line.strip_prefix(start)?.split(' ').next()?.parse().ok();
    lines.iter().filter_map(of).collect()
}
