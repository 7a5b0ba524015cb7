// Dialogs: the browser's own, which keep the focus inside and close by Escape.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { Glyph } from "./icons";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Dialog({ title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const gone = useRef(false);
  // Its event comes when another dialog may stand in its place already.
  const closed = (): void => {
    if (!gone.current) onClose();
  };
  useEffect(() => {
    const dialog = element.current!;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      gone.current = true;
      dialog.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog ref={element} aria-labelledby="dialog-title" onCancel={closed} onClose={closed}>
      <header>
        <h2 id="dialog-title">{title}</h2>
        <button type="button" class="button icon-only" aria-label="Close" onClick={onClose}>
          <Glyph name="close" />
        </button>
      </header>
      {children}
    </dialog>
  );
}

interface Question {
  title: string;
  text: string;
  action: string;
  answer: (yes: boolean) => void;
}

const question = signal<Question | undefined>(undefined);

/** Asks before something that cannot be taken back. */
export function confirm(title: string, text: string, action: string): Promise<boolean> {
  return new Promise((resolve) => {
    question.value = {
      title,
      text,
      action,
      answer(yes) {
        question.value = undefined;
        resolve(yes);
      },
    };
  });
}

export function Confirmation() {
  const asked = question.value;
  if (!asked) return null;
  return (
    <Dialog title={asked.title} onClose={() => asked.answer(false)}>
      <p>{asked.text}</p>
      <footer>
        <button type="button" class="button" onClick={() => asked.answer(false)}>
          Keep as it is
        </button>
        <button type="button" class="button danger" onClick={() => asked.answer(true)}>
          {asked.action}
        </button>
      </footer>
    </Dialog>
  );
}
