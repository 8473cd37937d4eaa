//! Options that leave a default as it is where they are not given.

/// Changes what is given and leaves the rest.
pub fn set<T>(slot: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *slot = value;
    }
}
