//! The gateways as processes, and the one who does the damage.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    broken::Broken,
    checker::{Promise, Violation},
    gateway::Setup,
    plan::{Fault, GATEWAYS, Planned},
    random::Random,
    servers::Servers,
    support::{ports::Port, process::Process},
};

const START: Duration = Duration::from_secs(20);

/// The servers and the gateways.
pub(crate) struct Fleet {
    servers: Servers,
    gateways: Vec<Gateway>,
    logs: TempDir,
}

struct Gateway {
    setup: Setup,
    _port: Port,
    process: Process,
}

impl Fleet {
    pub(crate) fn start(servers: Servers, origin: SocketAddr, broken: Broken) -> std::io::Result<Self> {
        let logs = tempfile::Builder::new().prefix("gatehouse-soak-").tempdir()?;
        let gateways = (0..GATEWAYS).map(|index| {
            let port = Port::reserve();
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
            let (cache, replicas, records) = (servers.cache_url(), servers.replicas(), servers.records_url());
            let setup = Setup { listen, cache, replicas, records, origin, broken };
            Ok(Gateway { process: launch(&setup, &logs, index)?, setup, _port: port })
        });
        let gateways = gateways.collect::<std::io::Result<Vec<_>>>()?;
        let fleet = Self { servers, gateways, logs };
        fleet.gateways.iter().for_each(Gateway::wait_for_start);
        Ok(fleet)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.setup.listen).collect()
    }

    /// Does what is planned, one after the other; when it returns, all is well again.
    pub(crate) fn suffer(&mut self, plan: &[Planned], seed: u64) {
        let start = Instant::now();
        for planned in plan {
            thread::sleep(planned.at.saturating_sub(start.elapsed()));
            println!("{planned}");
            self.take(planned.fault, seed);
        }
    }

    fn take(&mut self, fault: Fault, seed: u64) {
        let millis = Duration::from_millis;
        match fault {
            Fault::KillCache { node, down } => self.servers.kill_cache(node, millis(down)),
            Fault::FreezeCache { node, down } => self.servers.freeze_cache(node, millis(down)),
            Fault::EvictCells { time } => self.servers.evict_cells(millis(time), &Random::new(seed)),
            Fault::Forget => self.servers.forget(),
            Fault::FillCache { full } => self.servers.fill_cache(millis(full)),
            Fault::FailOver { shard } => self.servers.fail_over(shard),
            Fault::FlushScripts => self.servers.flush_scripts(),
            Fault::CutConnections => self.servers.cut_connections(),
            Fault::KillRecords { down } => self.servers.kill_records(millis(down)),
            Fault::FreezeRecords { down } => self.servers.freeze_records(millis(down)),
            Fault::KillGateway { gateway, down } => {
                let dead = &mut self.gateways[gateway];
                dead.process.kill();
                thread::sleep(millis(down));
                match launch(&dead.setup, &self.logs, gateway) {
                    Ok(process) => dead.process = process,
                    Err(error) => println!("gateway {gateway} does not start again: {error}"),
                }
                dead.wait_for_start();
            }
            Fault::FreezeGateway { gateway, down } => {
                let process = &self.gateways[gateway].process;
                process.signal("STOP");
                thread::sleep(millis(down));
                process.signal("CONT");
            }
        }
    }

    /// Prints what happened to the servers.
    pub(crate) fn tell(&self) {
        self.servers.tell();
    }

    /// Whether all gateways run, and none has panicked.
    pub(crate) fn check(&mut self) -> Vec<Violation> {
        let mut found = Vec::new();
        for (index, gateway) in self.gateways.iter_mut().enumerate() {
            let log = gateway.process.log();
            if log.contains("panicked at") || !gateway.process.is_running() {
                found.push(Violation::new(Promise::NoPanic, format!("gateway {index}: {log}")));
            }
        }
        found
    }
}

impl Gateway {
    fn wait_for_start(&self) {
        let start = Instant::now();
        while TcpStream::connect(self.setup.listen).is_err() {
            assert!(start.elapsed() < START, "a gateway does not listen: {}", self.process.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The gateways are this program.
fn launch(setup: &Setup, logs: &TempDir, index: usize) -> std::io::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    Process::spawn(command.args(setup.arguments()), &logs.path().join(index.to_string()))
}
