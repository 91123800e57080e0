//! What control has a worker do, a part in each turn.

use std::net::SocketAddr;

use super::pipeline::{Pipeline, Scene};
use crate::dispatch::Tick;
use crate::dispatch::flow_scan::{FlowScan, Progress};
use crate::wireguard::load::{AddressProof, Decision};

/// From control to a worker, and back when it is done: its memory is control's.
#[derive(Debug)]
pub enum Order {
    /// Go through the flow table.
    Flows(Box<FlowScan>),
    /// Say what would become of a handshake message to gateways.
    Foresee(Box<HandshakeQuestion>),
}

/// Would a handshake message to gateways, whose mac1 is right, pass now?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandshakeQuestion {
    /// Tells control what it belongs to.
    pub ticket: u64,
    /// Where the message comes from.
    pub from: SocketAddr,
    /// What it shows of that.
    pub proof: AddressProof,
    /// The worker's answer.
    pub decision: Option<Decision>,
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
            Order::Foresee(question) => {
                question.decision = Some(self.gateway_admission.foresee(question.from, question.proof, scene.now));
                Progress::Done
            }
        }
    }
}
