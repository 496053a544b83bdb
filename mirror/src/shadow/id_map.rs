//! Maps by numbers that the mirror gives itself: nobody outside can choose them to collide, so that a quick hash does.

use std::collections::{HashMap, HashSet};

use rapidhash::fast::RandomState;

/// A map by the number of a session or of an exchange.
pub type IdMap<K, V> = HashMap<K, V, RandomState>;
/// A set of such numbers.
pub type IdSet<K> = HashSet<K, RandomState>;
