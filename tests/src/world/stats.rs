//! What `jetway stats --json` says, read by name.

use serde_json::Value;

/// One reading of a node's counters.
#[derive(Clone, Debug)]
pub struct Stats(pub Value);

impl Stats {
    /// A counter of the workers, summed over them.
    ///
    /// # Panics
    /// If no worker has a counter of this name: a test that reads it would prove nothing.
    #[track_caller]
    pub fn sum(&self, counter: &str) -> u64 {
        self.workers().iter().map(|worker| named(&worker["counters"], counter)).sum()
    }

    /// A counter of each worker, in their order.
    #[track_caller]
    pub fn by_worker(&self, counter: &str) -> Vec<u64> {
        self.workers().iter().map(|worker| named(&worker["counters"], counter)).collect()
    }

    /// Packets dropped for a reason, summed over the workers.
    #[track_caller]
    pub fn drops(&self, reason: &str) -> u64 {
        self.workers().iter().map(|worker| named(&worker["drops"], reason)).sum()
    }

    /// Every reason for which packets were dropped, with how many.
    #[track_caller]
    pub fn all_drops(&self) -> Vec<(String, u64)> {
        let mut sums: Vec<(String, u64)> = Vec::new();
        for drop in self.workers().iter().flat_map(|worker| worker["drops"].as_array().into_iter().flatten()) {
            let (name, value) = (drop["name"].as_str().unwrap_or("?"), drop["value"].as_u64().unwrap_or(0));
            match sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += value,
                None => sums.push((name.to_owned(), value)),
            }
        }
        sums.retain(|(_, value)| *value > 0);
        sums
    }

    /// A counter that belongs to no worker, or `None`.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let counters = self.0["counters"].as_array()?;
        counters.iter().find(|counter| counter["name"] == name)?["value"].as_u64()
    }

    /// Packets that came and neither went nor wait, of each worker.
    #[track_caller]
    pub fn unaccounted(&self) -> Vec<i64> {
        let unaccounted = |worker: &Value| worker["unaccounted"].as_i64().unwrap_or_else(|| panic!("{worker}"));
        self.workers().iter().map(unaccounted).collect()
    }

    #[track_caller]
    fn workers(&self) -> &Vec<Value> {
        self.0["workers"].as_array().unwrap_or_else(|| panic!("no workers in {}", self.0))
    }
}

#[track_caller]
fn named(counters: &Value, name: &str) -> u64 {
    let all = counters.as_array().unwrap_or_else(|| panic!("no list of counters in {counters}"));
    let found = all.iter().find(|counter| counter["name"] == name).unwrap_or_else(|| panic!("no counter {name}"));
    found["value"].as_u64().unwrap_or_else(|| panic!("{name} is no number: {found}"))
}
