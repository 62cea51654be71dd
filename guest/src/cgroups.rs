//! Control groups: which container, service or session a task belongs to.

use profile::GuestVirtual;

use crate::{
    btf::Btf,
    error::{GuestError, LayoutError},
    kernel::Kernel,
    look::{GuestAddress, Look, Space},
    tasks::Task,
};

const MAX_DEPTH: usize = 64;
/// `NAME_MAX`.
const MAX_NAME: usize = 255;

/// Where the structures of control groups have what is asked of them.
#[derive(Debug)]
pub(crate) struct CgroupLayout {
    of_task: u64,
    unified: u64,
    controllers: u64,
    controller_count: u64,
    of_controller: u64,
    node: u64,
    parent: u64,
    name: u64,
}

impl CgroupLayout {
    pub(crate) fn of(btf: &Btf) -> Result<Self, LayoutError> {
        Ok(Self {
            of_task: btf.offset("task_struct", "cgroups")?,
            unified: btf.offset("css_set", "dfl_cgrp")?,
            controllers: btf.offset("css_set", "subsys")?,
            controller_count: btf.elements("css_set", "subsys")?,
            of_controller: btf.offset("cgroup_subsys_state", "cgroup")?,
            node: btf.offset("cgroup", "kn")?,
            // The name changed in 6.15.
            parent: btf.offset("kernfs_node", "parent").or_else(|_| btf.offset("kernfs_node", "__parent"))?,
            name: btf.offset("kernfs_node", "name")?,
        })
    }
}

impl Kernel {
    /// The path of a task's control group below the root of its hierarchy, as in `/proc/PID/cgroup`: untrusted text.
    ///
    /// That is the unified hierarchy (version 2). Where it has the task at its root, as under container runtimes that
    /// still use version 1, the first other hierarchy counts that has it elsewhere.
    pub fn cgroup(&self, look: &Look<'_>, task: &Task) -> Result<String, GuestError> {
        let layout = self.layout(|layouts| &layouts.cgroups)?;
        let space = self.space(look, "the control group of a task");
        let set = space.pointer(task.structure.plus(layout.of_task))?;
        let unified = path(&space, layout, space.pointer(set.plus(layout.unified))?)?;
        if unified != "/" {
            return Ok(unified);
        }
        for index in 0..layout.controller_count {
            let controller = space.pointer(set.plus(layout.controllers + 8 * index))?;
            if controller.is_null() {
                continue;
            }
            let path = path(&space, layout, space.pointer(controller.plus(layout.of_controller))?)?;
            if path != "/" {
                return Ok(path);
            }
        }
        Ok(unified)
    }
}

fn path(space: &Space<'_>, layout: &CgroupLayout, group: GuestVirtual) -> Result<String, GuestError> {
    let mut names = Vec::new();
    let mut node = space.pointer(group.plus(layout.node))?;
    loop {
        let parent = space.pointer(node.plus(layout.parent))?;
        if parent.is_null() {
            break;
        }
        if names.len() == MAX_DEPTH {
            return Err(space.damaged("it is nested without end"));
        }
        names.push(space.text(space.pointer(node.plus(layout.name))?, MAX_NAME)?);
        node = parent;
    }
    names.reverse();
    Ok(format!("/{}", names.join("/")))
}
