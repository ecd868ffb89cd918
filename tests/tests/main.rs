//! Black-box tests of the real binary: what a user, an operator, a stranger and a power cut may do to it.

mod crashes;
