//! The formats cards arrive in.
