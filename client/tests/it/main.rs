//! The client against a scripted peer: what it sends, and what it makes of every kind of answer, silence and noise.

mod peer;

mod calls;
mod feed;
mod imports;
mod jobs;
mod losses;
mod noise;
mod steps;
