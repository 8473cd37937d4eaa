//! Python's `random.Random`, so that examples are those that lm-evaluation-harness draws.

/// Words of the state of MT19937, and the distance of the words that are mixed (Matsumoto and Nishimura, 1998).
const WORDS: usize = 624;
const DISTANCE: usize = 397;

/// Mersenne Twister MT19937, seeded and read as Python does.
#[derive(Debug, Clone)]
pub struct PythonRandom {
    state: Vec<u32>,
    next: usize,
}

impl PythonRandom {
    /// The generator that `random.Random(seed)` is.
    pub fn new(seed: u64) -> Self {
        let mut key = vec![seed as u32];
        if seed > u64::from(u32::MAX) {
            key.push((seed >> 32) as u32);
        }
        let mut state = vec![19_650_218_u32; WORDS];
        fill(&mut state);
        let mut at = 1;
        for step in 0..WORDS.max(key.len()) {
            let index = step % key.len();
            let mixed = (state[at - 1] ^ (state[at - 1] >> 30)).wrapping_mul(1_664_525);
            state[at] = (state[at] ^ mixed).wrapping_add(key[index]).wrapping_add(index as u32);
            at = advance(&mut state, at);
        }
        for _ in 1..WORDS {
            let mixed = (state[at - 1] ^ (state[at - 1] >> 30)).wrapping_mul(1_566_083_941);
            state[at] = (state[at] ^ mixed).wrapping_sub(at as u32);
            at = advance(&mut state, at);
        }
        state[0] = 1 << 31;
        Self { state, next: WORDS }
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn random(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `random.sample(range(length), count)`: distinct indices. At most `length` of them.
    pub fn sample(&mut self, length: usize, count: usize) -> Vec<usize> {
        let count = count.min(length);
        if length > pool_limit(count) {
            let mut chosen: Vec<usize> = Vec::with_capacity(count);
            while chosen.len() < count {
                let index = self.below(length);
                if !chosen.contains(&index) {
                    chosen.push(index);
                }
            }
            return chosen;
        }
        let mut pool: Vec<usize> = (0..length).collect();
        let mut draw = |left: usize| {
            let index = self.below(left);
            pool.swap_remove(index)
        };
        (0..count).map(|drawn| draw(length - drawn)).collect()
    }

    /// An index of `random.choices(range(length))`.
    pub fn choice(&mut self, length: usize) -> usize {
        (self.random() * length as f64) as usize
    }

    /// Uniform below a number that is not 0 and has at most 32 bits.
    fn below(&mut self, bound: usize) -> usize {
        let bits = usize::BITS - bound.leading_zeros();
        loop {
            let drawn = (self.word() >> (32 - bits)) as usize;
            if drawn < bound {
                return drawn;
            }
        }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for index in 0..WORDS {
            let both = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % WORDS] & 0x7fff_ffff);
            let odd = if both & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + DISTANCE) % WORDS] ^ (both >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// `init_genrand` from the number in the first word.
fn fill(state: &mut [u32]) {
    for index in 1..state.len() {
        let before = state[index - 1];
        let mixed = (before ^ (before >> 30)).wrapping_mul(1_812_433_253);
        state[index] = mixed.wrapping_add(index as u32);
    }
}

/// The next word of seeding; past the last one it goes on behind the first, which then has the last one's value.
fn advance(state: &mut [u32], at: usize) -> usize {
    if at + 1 < WORDS {
        return at + 1;
    }
    state[0] = state[WORDS - 1];
    1
}

/// Up to this length Python draws from a copy of the list, and beyond it by rejection.
fn pool_limit(count: usize) -> usize {
    let mut limit = 21;
    if count > 5 {
        // 4^ceil(log4(3 count))
        let mut power = 1;
        while power < 3 * count {
            power *= 4;
        }
        limit += power;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of CPython 3.11.
    #[test]
    fn draws_are_pythons() {
        let mut random = PythonRandom::new(1234);
        let first: Vec<f64> = (0..3).map(|_| random.random()).collect();
        assert_eq!(first, [0.9664535356921388, 0.4407325991753527, 0.007491470058587191]);
        assert_eq!(random.sample(40, 5), [37, 2, 5, 6, 22]);
        assert_eq!(random.sample(40, 5), [15, 1, 22, 39, 30]);
        assert_eq!(random.sample(40, 5), [39, 29, 9, 5, 11]);
        assert_eq!(random.sample(15, 5), [11, 1, 0, 8, 7]);
        assert_eq!(random.sample(15, 5), [14, 3, 1, 10, 8]);
        assert_eq!(random.sample(30, 6), [29, 14, 2, 19, 21, 27]);
        assert_eq!(random.sample(100, 6), [65, 74, 5, 34, 71, 8]);
        let choices: Vec<usize> = (0..10).map(|_| random.choice(7)).collect();
        assert_eq!(choices, [4, 3, 2, 1, 6, 3, 3, 0, 3, 0]);
        assert_eq!(PythonRandom::new(0).word(), 3_626_764_237);
        assert_eq!(PythonRandom::new((1 << 40) + 5).random(), 0.5043802970418443);
        assert_eq!(random.sample(3, 9).len(), 3);
    }
}
