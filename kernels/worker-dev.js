// Entry of a worker in a checkout: Node 20 cannot load .ts in a worker, so tsx registers its loader first.
import { register } from "tsx/esm/api";

register();
await import("./worker.ts");
