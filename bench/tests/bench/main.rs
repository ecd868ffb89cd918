//! The bench against a small server of its own, one that can be told to lie: a bench is worth what its oracle notices.

mod command_line;
mod lies;
mod side_by_side;
mod toy;
