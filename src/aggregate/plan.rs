//! Which part waits for which; worked out once, when the aggregate is built.

use super::AggregateError;

/// The dependencies between parts, by index. They have no cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each part: the parts whose JSON it is given.
    pub(super) needs: Vec<Vec<usize>>,
    /// For each part: the parts that wait for it.
    pub(super) wanted_by: Vec<Vec<usize>>,
}

impl Plan {
    /// `parts` are names with the names that each depends on.
    pub(super) fn new<'a>(parts: &[(&'a str, Vec<&'a str>)]) -> Result<Self, AggregateError> {
        let mut plan = Self { needs: vec![Vec::new(); parts.len()], wanted_by: vec![Vec::new(); parts.len()] };
        for (index, (name, dependencies)) in parts.iter().enumerate() {
            if parts[..index].iter().any(|(other, _)| other == name) {
                return Err(AggregateError::new(format!("two parts are named `{name}`")));
            }
            for dependency in dependencies {
                let Some(needed) = parts.iter().position(|(other, _)| other == dependency) else {
                    return Err(AggregateError::new(format!(
                        "the part `{name}` depends on `{dependency}`, which is not a part of this aggregate"
                    )));
                };
                if !plan.needs[index].contains(&needed) {
                    plan.needs[index].push(needed);
                    plan.wanted_by[needed].push(index);
                }
            }
        }
        match plan.cycle() {
            None => Ok(plan),
            Some(cycle) => {
                let names: Vec<_> = cycle.iter().map(|&index| parts[index].0).collect();
                Err(AggregateError::new(format!("the parts depend on each other in a circle: {}", names.join(" -> "))))
            }
        }
    }

    /// How many parts each part still waits for at the start.
    pub(super) fn waits(&self) -> Vec<usize> {
        self.needs.iter().map(Vec::len).collect()
    }

    /// A cycle, with its first part repeated at the end.
    fn cycle(&self) -> Option<Vec<usize>> {
        // Take away what waits for nothing until no more goes; what is left leads into a cycle.
        let mut waits = self.waits();
        let mut free: Vec<_> = (0..waits.len()).filter(|&index| waits[index] == 0).collect();
        while let Some(index) = free.pop() {
            for &next in &self.wanted_by[index] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    free.push(next);
                }
            }
        }
        let mut path = vec![waits.iter().position(|&wait| wait > 0)?];
        loop {
            let next = self.needs[path[path.len() - 1]].iter().copied().find(|&index| waits[index] > 0)?;
            if let Some(start) = path.iter().position(|&index| index == next) {
                path.drain(..start);
                path.push(next);
                return Some(path);
            }
            path.push(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(parts: &[(&str, Vec<&str>)]) -> String {
        Plan::new(parts).unwrap_err().to_string()
    }

    #[test]
    fn each_part_knows_what_it_waits_for_and_who_waits_for_it() {
        let plan = Plan::new(&[("c", vec!["a", "b", "a"]), ("a", vec![]), ("b", vec!["a"])]).unwrap();
        assert_eq!(plan.needs, [vec![1, 2], vec![], vec![1]]);
        assert_eq!(plan.wanted_by, [vec![], vec![0, 2], vec![0]]);
    }

    #[test]
    fn a_circle_is_refused_and_named() {
        let parts = [("x", vec!["a"]), ("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["a", "d"]), ("d", vec![])];
        assert_eq!(refusal(&parts), "the parts depend on each other in a circle: a -> b -> c -> a");
        assert_eq!(refusal(&[("a", vec!["a"])]), "the parts depend on each other in a circle: a -> a");
    }

    #[test]
    fn unknown_and_double_names_are_refused() {
        assert_eq!(refusal(&[("a", vec!["z"])]), "the part `a` depends on `z`, which is not a part of this aggregate");
        assert_eq!(refusal(&[("a", vec![]), ("a", vec![])]), "two parts are named `a`");
    }
}
