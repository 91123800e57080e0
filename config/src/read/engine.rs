//! Reads `[engine]`.

use std::collections::HashMap;

use crate::intent::{AeadChoice, Engine, Idle, Memory, MemoryKind, PuntLimit};
use crate::parse::Surroundings;
use crate::section::{Field, Section};
use crate::source::{Finding, Mark};

pub(super) fn read(mut section: Section<'_>, surroundings: &Surroundings<'_>) -> Option<Engine> {
    let cores = section.required("cores", "name the CPUs that run workers, for example cores = [1]");
    let cores = cores.and_then(|field| cpus(&field, surroundings.cpus));
    let control_cores = section.field("control_cores").and_then(|field| cpus(&field, surroundings.cpus));
    warn_of_shared_cpus(&section, cores.as_deref(), control_cores.as_deref(), surroundings.cpus);
    let kinds = [("auto", MemoryKind::Auto), ("hugepages", MemoryKind::Hugepages), ("ordinary", MemoryKind::Ordinary)];
    let kind = section.field("memory").and_then(|field| field.choice(&kinds)).unwrap_or(MemoryKind::Auto);
    let size_mib = section.field("memory_mib").and_then(|field| field.number(64..=1_048_576_u32));
    let idles = [("backoff", Idle::Backoff), ("poll", Idle::Poll)];
    let idle = section.field("idle").and_then(|field| field.choice(&idles)).unwrap_or(Idle::Backoff);
    let aeads = [
        ("auto", AeadChoice::Auto),
        ("avx512", AeadChoice::Avx512),
        ("avx2", AeadChoice::Avx2),
        ("aws-lc-rs", AeadChoice::AwsLc),
        ("rustcrypto", AeadChoice::RustCrypto),
    ];
    let aead = section.field("aead").and_then(|field| field.choice(&aeads)).unwrap_or(AeadChoice::Auto);
    let rate = section.field("punt_rate").and_then(|field| field.number(1..=100_000_000_u32));
    let burst = section.field("punt_burst").and_then(|field| field.number(1..=1_000_000_u32));
    let punt =
        PuntLimit { rate: rate.unwrap_or(PuntLimit::DEFAULT.rate), burst: burst.unwrap_or(PuntLimit::DEFAULT.burst) };
    let buffers = section.field("buffers").and_then(|field| field.number(1_024..=16_777_216_u32));
    let flows = section.field("flows").and_then(|field| field.number(1_024..=80_000_000_u32));
    section.finish(&[]);
    Some(Engine {
        cores: numbers(cores?),
        control_cores: control_cores.map(numbers),
        memory: Memory { kind, size_mib },
        idle,
        aead,
        punt,
        buffers: buffers.unwrap_or(Engine::DEFAULT_BUFFERS),
        flows: flows.unwrap_or(Engine::DEFAULT_FLOWS),
    })
}

/// A list of CPUs, none twice, each below `count`.
fn cpus(field: &Field<'_>, count: usize) -> Option<Vec<(usize, Mark)>> {
    let items = field.list("[1, 2]")?;
    if items.is_empty() {
        field.error(format!("`{}` names no CPU", field.mark.key), "name at least one, for example [1]");
    }
    let mut first: HashMap<usize, Mark> = HashMap::new();
    let mut cpus = Vec::with_capacity(items.len());
    for item in items {
        let Some(cpu) = item.number(0..=u16::MAX).map(usize::from) else { continue };
        if cpu >= count {
            let last = count.saturating_sub(1);
            item.error(
                format!("there is no CPU {cpu} on this machine"),
                format!("its CPUs are 0 to {last}; see `lscpu -e`"),
            );
        } else if let Some(before) = first.get(&cpu) {
            let finding = Finding::error(format!("CPU {cpu} is named twice"), "remove one of the two");
            item.source.report(&item.mark, finding.related(before, "first named here"));
        } else {
            first.insert(cpu, item.mark.clone());
            cpus.push((cpu, item.mark));
        }
    }
    Some(cpus)
}

fn warn_of_shared_cpus(
    section: &Section<'_>,
    workers: Option<&[(usize, Mark)]>,
    control: Option<&[(usize, Mark)]>,
    count: usize,
) {
    const HINT: &str = "leave control a CPU of its own: a worker that shares one delays packets";
    let workers: HashMap<usize, &Mark> = workers.unwrap_or_default().iter().map(|(cpu, mark)| (*cpu, mark)).collect();
    for (cpu, mark) in control.unwrap_or_default() {
        if let Some(worker) = workers.get(cpu) {
            let finding = Finding::warning(format!("CPU {cpu} runs both a worker and control threads"), HINT);
            section.source.report(mark, finding.related(worker, "the worker"));
        }
    }
    if control.is_none() && count > 1 && workers.len() == count {
        section
            .source
            .report(&section.mark(), Finding::warning("every CPU runs a worker, none is left for control", HINT));
    }
}

fn numbers(cpus: Vec<(usize, Mark)>) -> Vec<usize> {
    cpus.into_iter().map(|(cpu, _)| cpu).collect()
}
