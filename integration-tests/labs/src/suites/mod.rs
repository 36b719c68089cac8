//! The graded scenarios, one file for each lab part.
//!
//! `catalogue.txt` is the table of their tests ([`crate::sheet`]).

pub mod kvraft;
pub mod kvraft1;
pub mod kvsrv;
pub mod kvsrv1;
pub mod lock;
pub mod mapreduce;
pub mod network;
mod one_group;
pub mod placement;
pub mod raft;
pub mod rsm;
pub mod shardctrler;
pub mod shardkv;
pub mod shardkv1;
pub mod sjtu;
pub mod versioned;

use crate::sheet::{self, Test};

/// The graded tests, in the order of the labs.
pub(crate) fn graded() -> Vec<Test> {
    let suites = [
        network::scenarios,
        mapreduce::scenarios,
        kvsrv::scenarios,
        kvsrv1::scenarios,
        lock::scenarios,
        raft::scenarios,
        rsm::scenarios,
        kvraft::scenarios,
        kvraft1::scenarios,
        shardctrler::scenarios,
        placement::scenarios,
        shardkv::scenarios,
        shardkv1::scenarios,
        sjtu::scenarios,
    ];
    let scenarios = suites.into_iter().flat_map(|scenarios| scenarios()).collect();
    sheet::catalogue(include_str!("catalogue.txt"), scenarios)
        .unwrap_or_else(|why| panic!("suites/catalogue.txt: {why}"))
}
