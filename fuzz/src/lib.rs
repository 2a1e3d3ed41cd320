//! Mutations of stories, line by line. What is left to chance alone rarely is a request; what is made by a grammar alone never surprises.
//! So every other mutation is libFuzzer's own.

/// What lines are made from.
pub struct Grammar {
    /// What a line begins with, and how it goes on: `@name` stands for a text of that pool.
    pub lines: &'static [&'static str],
    /// By name.
    pub pools: &'static [(&'static str, &'static [&'static str])],
}

impl Grammar {
    /// Changes the first `size` bytes of `data`, which has room for `size_max`; returns how many there are then.
    pub fn mutate(&self, data: &mut [u8], size: usize, size_max: usize, seed: u32) -> usize {
        let mut dice = Dice(u64::from(seed));
        if dice.below(2) == 0 {
            return libfuzzer_sys::fuzzer_mutate(data, size, size_max);
        }
        let mut lines: Vec<Vec<u8>> = data[..size].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for _ in 0..=dice.below(3) {
            let at = dice.below(lines.len() + 1);
            let other = dice.below(lines.len().max(1));
            match dice.below(8) {
                0 if at < lines.len() => drop(lines.remove(at)),
                1 if at < lines.len() => lines.swap(at, other),
                2 if !lines.is_empty() => lines.insert(at, lines[other].clone()),
                3 if at < lines.len() => lines[at] = self.line(&mut dice),
                _ => lines.insert(at, self.line(&mut dice)),
            }
        }
        let mut story = lines.join(&b'\n');
        story.truncate(size_max);
        data[..story.len()].copy_from_slice(&story);
        story.len()
    }

    fn line(&self, dice: &mut Dice) -> Vec<u8> {
        let mut rest = self.lines[dice.below(self.lines.len())];
        let mut out = String::new();
        while let Some((before, after)) = rest.split_once('@') {
            out.push_str(before);
            let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            match self.pools.iter().find(|pool| pool.0 == name) {
                Some((_, texts)) => out.push_str(texts[dice.below(texts.len())]),
                None => panic!("there is no pool @{name}"),
            }
            rest = after;
        }
        out.push_str(rest);
        out.into_bytes()
    }
}

/// The splitmix64 sequence.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
