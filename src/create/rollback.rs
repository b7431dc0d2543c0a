//! Undoes what `create` has made, in reverse order, unless the work is complete.

/// What has been made so far.
#[derive(Default)]
pub struct Rollback {
    undo: Vec<Box<dyn FnOnce()>>,
}

impl Rollback {
    /// Notes how to undo what has just been made. An undo that fails has nobody to tell: `delete
    /// --force` finds the same things through the record.
    pub fn push(&mut self, undo: impl FnOnce() + 'static) {
        self.undo.push(Box::new(undo));
    }

    /// Everything stays.
    pub fn commit(mut self) {
        self.undo.clear();
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        while let Some(undo) = self.undo.pop() {
            undo();
        }
    }
}

impl std::fmt::Debug for Rollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rollback")
            .field("undo", &self.undo.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn what_is_not_committed_is_undone_last_first() {
        let undone = Rc::new(RefCell::new(Vec::new()));
        let note = |rollback: &mut Rollback, name: &'static str| {
            let undone = Rc::clone(&undone);
            rollback.push(move || undone.borrow_mut().push(name));
        };
        let mut rollback = Rollback::default();
        note(&mut rollback, "first");
        note(&mut rollback, "second");
        drop(rollback);
        assert_eq!(*undone.borrow(), ["second", "first"]);
        let mut rollback = Rollback::default();
        note(&mut rollback, "kept");
        rollback.commit();
        assert_eq!(undone.borrow().len(), 2);
    }
}
