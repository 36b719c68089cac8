//! What every server of a cluster reports at one moment, what follows from it, and the plans that are
//! made from it: for the command line, and for the page that each controller shows.
//!
//! From the bottom up: [`reach`] is how servers are asked. [`survey`] asks all of them and concludes.
//! [`document`] tells a survey as programs read it, [`moves`] the shards on their way, [`changes`] what
//! a change makes. [`forecast`] says what moves carry; [`balance`] and [`arrange`] plan many of them;
//! [`join`] finds out what a join must say.
//!
//! [`watch`] looks again and again, and adds what a single survey cannot say: [`rates`], and the age of
//! what is silent. [`slow`] gathers slow requests. [`health`] is all of it in a sentence. [`act`] makes changes that are asked for in
//! JSON, and [`page`] are the files of the page.
//!
//! Left out on purpose: tables and words for terminals (they are the command line's), and HTTP.

pub mod act;
pub mod arrange;
pub mod balance;
pub mod changes;
pub mod document;
pub mod forecast;
pub mod health;
pub mod join;
pub mod moves;
pub mod page;
pub mod rates;
pub mod reach;
pub mod refused;
pub mod sample;
pub mod servers;
pub mod slow;
pub mod survey;
pub mod watch;
