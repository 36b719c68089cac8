//! The measuring loop on real processes: a short run that tests whether it measures, not how fast
//! anything is.

use std::time::Duration;

use measure::load::{BATCH, Scale, Work, fill, on_one_thread, run};
use measure::ours::Ours;
use real::together;

#[test]
fn every_kind_of_load_is_measured_on_a_cluster_of_processes() {
    let _machine = together();
    let ours = Ours::start();
    let (warm_up, time) = (Duration::from_millis(100), Duration::from_millis(400));
    let scale = Scale { keys: 320, value_bytes: 256, warm_up, time };
    let works = [
        Work { clients: 8, reads: 0, batch: 1 },
        Work { clients: 8, reads: 100, batch: 1 },
        Work { clients: 4, reads: 50, batch: 1 },
        Work { clients: 4, reads: 0, batch: BATCH },
    ];
    let measured = on_one_thread(async {
        fill(&ours, 0..scale.keys, scale.value_bytes).await?;
        let mut measured = Vec::new();
        for work in works {
            measured.push(run(&ours, work, scale).await?);
        }
        Ok(measured)
    });
    for one in measured.unwrap() {
        assert_eq!(one.failed, 0, "{one:?}");
        assert!(one.rate > 10.0 && one.p50_ms > 0.0 && one.p99_ms >= one.p50_ms, "{one:?}");
        assert!(one.server_us > 0.0 && one.client_us > 0.0 && one.rss_mib > 1.0, "{one:?}");
    }
}
