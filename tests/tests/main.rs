//! Black-box tests of the real binary: what a user, an operator, a stranger and a power cut may do to it.

mod stock;

mod canary;
mod channels;
mod crashes;
mod damage;
mod deliveries;
mod disk_full;
mod expiry;
mod failing_disk;
mod feed;
mod files;
mod finds;
mod history;
mod holders;
mod linked;
mod manners;
mod moves;
mod pressure;
mod requests;
mod reusable;
mod routes;
mod secrets;
mod selection;
mod sellout;
mod starts;
mod stops;
mod two_phase;
mod what_if;
