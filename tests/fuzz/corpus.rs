//! The committed corpus, whole and changed: what fuzzing found once is asked in every test run.

use std::path::Path;

use verge_tests::fuzz::TARGETS;

/// Changed inputs made of each committed one.
const CHANGES: u64 = 24;

/// Most bytes of the largest input.
const INPUT_BYTES_MAX: usize = 4_096;

#[test]
fn security_the_corpus_of_every_entry_point_is_taken() {
    for target in TARGETS {
        let mut inputs = inputs_of(target.name);
        assert!(!inputs.is_empty(), "{} has a corpus", target.name);
        for (name, input) in &inputs {
            println!("{} {name}", target.name);
            (target.run)(input);
        }
        // A fixed seed: the same run every time.
        let mut dice = Dice(0x5eed);
        for at in 0..inputs.len() {
            for _ in 0..CHANGES {
                let other = dice.below(inputs.len());
                let changed = change(&inputs[at].1, &inputs[other].1, &mut dice);
                (target.run)(&changed);
            }
        }
        inputs.clear();
    }
}

fn inputs_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("a directory can be listed");
            let input = std::fs::read(entry.path()).expect("a file can be read");
            assert!(input.len() <= INPUT_BYTES_MAX, "{}", entry.path().display());
            (entry.file_name().to_string_lossy().into_owned(), input)
        })
        .collect();
    inputs.sort();
    inputs
}

/// An input with a few bytes set, removed or taken from another.
fn change(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len() + 1);
        match dice.below(4) {
            0 if at < out.len() => out[at] = u8::try_from(dice.below(256)).expect("below 256"),
            1 if at < out.len() => drop(out.remove(at)),
            2 => out.insert(at, u8::try_from(dice.below(64)).expect("below 64")),
            _ => {
                let from = dice.below(other.len() + 1);
                let to = from + dice.below(other.len() - from + 1);
                out.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    out.truncate(INPUT_BYTES_MAX);
    out
}

/// xorshift64*, enough to vary inputs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(drawn).expect("32 bits") % bound.max(1)
    }
}
