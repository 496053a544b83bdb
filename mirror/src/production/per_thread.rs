//! What every production thread has one of, each on cache lines of its own: two threads that count on the same line
//! pay for each other's counting with every exchange. It does not know what it holds.

/// One value for each production thread.
#[derive(Debug)]
pub struct PerThread<T>(Box<[Padded<T>]>);

/// Two lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerThread<T> {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Padded::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// That of the thread with this number.
    pub fn of(&self, thread: usize) -> Option<&T> {
        self.0.get(thread).map(|padded| &padded.0)
    }

    /// Those of all threads.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}
