//! What control has a worker do, a part in each turn.

use super::pipeline::{Pipeline, Scene};
use crate::dispatch::Tick;
use crate::dispatch::flow_scan::{FlowScan, Progress};

/// From control to a worker, and back when it is done: its memory is control's.
#[derive(Debug)]
pub enum Order {
    /// Go through the flow table.
    Flows(Box<FlowScan>),
}

impl<B> Pipeline<B> {
    /// Carries out a bounded part of an order.
    pub fn carry_out(&mut self, order: &mut Order, scene: &Scene<'_>) -> Progress {
        match order {
            Order::Flows(scan) => {
                let progress = scan.step(&mut self.flows, Tick::from(scene.now));
                self.counters.flows.set(self.flows.len() as u64);
                progress
            }
        }
    }
}
