//! What users say first in a chat: tasks of many kinds on many topics.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// First and further words of users, drawn at random.
///
/// Lists, code, explanations, rewriting, mathematics, dialogue, summaries, stories, letters, advice and questions in a few
/// words, each on a topic of its kind. The same seed gives the same words.
#[derive(Debug, Clone)]
pub struct Openings(StdRng);

/// Tasks of one kind, with `{}` where the topic stands, and their topics.
struct Kind {
    tasks: &'static [&'static str],
    topics: &'static [&'static str],
}

/// How many chats have a second question: one in this many.
const SECOND_TURNS: u32 = 4;

impl Openings {
    /// Openings from a seed.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// What a chat begins with.
    pub fn first(&mut self) -> String {
        let kind = &KINDS[self.0.random_range(0..KINDS.len())];
        let task = self.one_of(kind.tasks);
        let topic = self.one_of(kind.topics);
        task.replace("{}", topic)
    }

    /// What a chat goes on with behind its first answer, if it does.
    pub fn second(&mut self) -> Option<String> {
        let goes_on = self.0.random_range(0..SECOND_TURNS) == 0;
        goes_on.then(|| self.one_of(FURTHER).to_owned())
    }

    fn one_of(&mut self, words: &'static [&'static str]) -> &'static str {
        words[self.0.random_range(0..words.len())]
    }
}

/// Things of everyday life, nature, knowledge and work.
const TOPICS: &[&str] = &[
    "the water cycle",
    "learning to swim",
    "solar panels",
    "the history of bread",
    "volcanoes",
    "saving money",
    "time zones",
    "public libraries",
    "the human heart",
    "chess",
    "electric cars",
    "the French Revolution",
    "photosynthesis",
    "working from home",
    "black holes",
    "gardening on a balcony",
    "vaccines",
    "jazz",
    "the stock market",
    "bicycles",
    "good sleep",
    "the Silk Road",
    "machine learning",
    "bees",
    "job interviews",
    "earthquakes",
    "coffee",
    "democracy",
    "moving to another city",
    "the immune system",
    "poetry",
    "recycling",
    "ancient Egypt",
    "running a marathon",
    "encryption",
    "coral reefs",
    "inflation",
    "train travel",
    "probability",
    "caring for a dog",
    "the Moon",
    "writing a thesis",
    "football",
    "bridges",
    "antibiotics",
    "cooking for many guests",
    "migratory birds",
    "how laws are made",
    "photography",
    "back pain",
];

/// Small programs and parts of them.
const PROGRAMS: &[&str] = &[
    "reverses a string",
    "checks whether a number is prime",
    "counts the words of a text file",
    "sorts a list of names by length",
    "finds the largest number of a list",
    "computes the first n Fibonacci numbers",
    "reads a CSV file and sums a column",
    "removes duplicates from a list",
    "converts Celsius to Fahrenheit",
    "checks whether a word is a palindrome",
    "merges two sorted lists",
    "downloads a web page and prints its title",
    "validates an email address",
    "searches a sorted array by bisection",
    "rolls two dice a thousand times and shows the frequencies",
    "keeps a list of things to do",
    "groups orders by customer",
    "finds the shortest path in a grid",
];

/// What can be computed.
const SUMS: &[&str] = &[
    "A train goes 240 km in 3 hours. How far does it go in 5 hours at the same speed?",
    "What is 15% of 280?",
    "Solve for x: 3x + 7 = 25.",
    "A rectangle is 12 cm long and 7 cm wide. What are its area and its perimeter?",
    "Anna has three times as many apples as Ben. Together they have 48. How many has each?",
    "What is the derivative of x^3 - 4x?",
    "A shirt costs 40 euros after a discount of 20%. What did it cost before?",
    "What is the probability of at least one six in two throws of a die?",
    "Convert 2.5 hours into minutes and seconds.",
    "Find the mean and the median of 4, 8, 15, 16, 23, 42.",
    "How many different ways are there to arrange five books on a shelf?",
    "Simplify (2a + 3b) - (a - 4b).",
    "If 5 workers need 12 days, how long do 8 workers need?",
    "What is the sum of the numbers from 1 to 100?",
    "Write 0.375 as a fraction in lowest terms.",
    "A tank of 600 litres loses 2% of its water a day. How much is left after three days?",
];

/// Short texts to work on.
const PASSAGES: &[&str] = &[
    "The meeting was moved to Thursday because two of the speakers are ill. Please tell the others, and bring the printed plans.",
    "Although the new bridge was finished on time, it cost twice as much as the council had agreed to, and the old ferry still \
     runs on weekends.",
    "Hi all, the server was down last night, we restarted it but dont know why it happend. will look at logs tomorow.",
    "Plants in dry regions store water in thick stems and leaves. Many open their pores only at night, when the air is cooler \
     and less water is lost.",
    "I liked the room and the breakfast was fine, but the noise from the street kept us awake until two, and nobody at the desk \
     seemed to care.",
    "In 1928 a scientist noticed that mould on a forgotten dish had killed the bacteria around it. It took more than ten years \
     until a medicine was made from it.",
    "Our shop has grown from three to twenty people in four years. We sell tools for gardeners, and most of our customers come \
     back every spring.",
    "The study followed 1,200 adults for six years. Those who walked at least half an hour a day reported fewer days of illness, \
     but the authors warn that the cause is not clear.",
    "The river rose in the night. By morning the lower fields were under water, and the farmers had brought the sheep up to the \
     church.",
    "You can return goods within 30 days if they are unused and in their original box; the cost of sending them back is yours \
     unless the goods are faulty.",
];

/// People and things that stories and letters are about.
const FIGURES: &[&str] = &[
    "a lighthouse keeper and a lost whale",
    "two sisters who inherit a bakery",
    "a robot that is afraid of the dark",
    "a teacher on her last day of work",
    "a boy who finds a map in an old coat",
    "neighbours who have not spoken for years",
    "a violin that is sold at a market",
    "an astronaut who misses the rain",
    "a cat that lives in a train station",
    "a chess player who never loses",
    "a doctor in a small mountain village",
    "a storm that lasts a hundred days",
];

/// Where somebody asks for advice.
const SITUATIONS: &[&str] = &[
    "I have to give a talk next week and I am nervous.",
    "My phone's battery is empty after half a day.",
    "My neighbour plays loud music at night.",
    "I want to learn Spanish but have only twenty minutes a day.",
    "Our team misses every deadline.",
    "My tomato plants have yellow leaves.",
    "I cannot decide between two job offers.",
    "My son does not want to do his homework.",
    "I would like to eat less sugar.",
    "I have one day in a city I do not know.",
    "My laptop is slow and makes a lot of noise.",
    "I forgot my best friend's birthday.",
];

/// Questions with an answer of a few words.
const QUESTIONS: &[&str] = &[
    "What is the capital of Australia?",
    "Who wrote Don Quixote?",
    "How many bones does an adult have?",
    "What is the boiling point of water in Fahrenheit?",
    "Which planet has the most moons?",
    "What does HTTP stand for?",
    "Translate \"Where is the station?\" into French.",
    "What is the opposite of \"generous\"?",
    "Is a tomato a fruit or a vegetable?",
    "Which language is spoken in Brazil?",
    "When did the Second World War end?",
    "What is the chemical symbol of iron?",
    "Hello! What can you do?",
    "Hi, how are you today?",
];

const KINDS: &[Kind] = &[
    Kind {
        tasks: &[
            "Explain {} to a ten-year-old.",
            "How does one best begin with {}? Explain step by step.",
            "What should everybody know about {}?",
            "Explain the most important facts about {}.",
            "What are common misunderstandings about {}?",
            "Write a short paragraph about {}.",
        ],
        topics: TOPICS,
    },
    Kind {
        tasks: &[
            "Give me a list of ten facts about {}.",
            "List five advantages and five disadvantages of {}.",
            "Make a numbered list of steps to learn more about {}.",
            "Suggest seven titles for an article about {}.",
            "Write a table in Markdown that sums up {}.",
            "Write an outline with headings and bullet points for a lecture on {}.",
        ],
        topics: TOPICS,
    },
    Kind {
        tasks: &[
            "Write a Python function that {}.",
            "Write a program in JavaScript that {}, with comments.",
            "Write a C function that {}.",
            "Show me how to write Rust code that {}.",
            "Write a Python script that {}, and explain how it works.",
            "Write unit tests in Python for a function that {}.",
            "Write Java code that {}.",
        ],
        topics: PROGRAMS,
    },
    Kind {
        tasks: &[
            "{}",
            "{} Show your work.",
            "{} Explain each step.",
            "Please help me with this: {}",
        ],
        topics: SUMS,
    },
    Kind {
        tasks: &[
            "Rewrite this text so that it is friendlier:\n\n{}",
            "Correct the mistakes in this text and make it more formal:\n\n{}",
            "Make this text half as long:\n\n{}",
            "Turn this into an email:\n\n{}",
            "Rewrite the following for children:\n\n{}",
        ],
        topics: PASSAGES,
    },
    Kind {
        tasks: &[
            "Summarize the following text in one sentence:\n\n{}",
            "What are the key points of this text?\n\n{}",
            "Write three questions that can be answered from this text:\n\n{}",
            "Extract the facts of this text as JSON:\n\n{}",
        ],
        topics: PASSAGES,
    },
    Kind {
        tasks: &[
            "Write a short story about {}.",
            "Write a dialogue that begins a play about {}.",
            "Write a poem about {}.",
            "Write the first page of a novel about {}.",
            "Invent three characters for a film about {}.",
        ],
        topics: FIGURES,
    },
    Kind {
        tasks: &[
            "{} What should I do?",
            "{} Can you give me some advice?",
            "{} Make a plan for me.",
        ],
        topics: SITUATIONS,
    },
    Kind {
        tasks: &[
            "Write a dialogue between a teacher and a student about {}.",
            "Interview an expert on {}: write questions and answers.",
            "Two friends disagree about {}. Write their conversation.",
        ],
        topics: TOPICS,
    },
    Kind {
        tasks: &["{}"],
        topics: QUESTIONS,
    },
];

/// What users say to any answer.
const FURTHER: &[&str] = &[
    "Thanks! Can you make it shorter?",
    "Can you explain that in more detail?",
    "Give me an example, please.",
    "Could you write that as a list?",
    "Why is that?",
    "Now say it in simpler words.",
    "What are the arguments against it?",
    "Please check your answer and correct any mistakes.",
    "What would you recommend next?",
    "Can you give me a different version?",
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn openings_are_many_and_those_of_their_seed() {
        let drawn = |seed| {
            let mut openings = Openings::new(seed);
            (0..200)
                .map(|_| (openings.first(), openings.second()))
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        let first: HashSet<String> = drawn(1).into_iter().map(|(first, _)| first).collect();
        assert!(first.len() > 150, "{}", first.len());
        assert!(first.iter().all(|text| !text.is_empty() && !text.contains("{}")));
        let second = drawn(1).into_iter().filter(|(_, second)| second.is_some()).count();
        assert!((30..70).contains(&second), "{second}");
        // Every kind comes, with each of its tasks.
        let all: Vec<String> = (3..40).flat_map(drawn).map(|(first, _)| first).collect();
        for task in KINDS.iter().flat_map(|kind| kind.tasks) {
            let (before, after) = task.split_once("{}").unwrap();
            assert!(
                all.iter().any(|text| text.starts_with(before) && text.ends_with(after)),
                "{task}"
            );
        }
    }
}
